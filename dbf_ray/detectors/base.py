"""What every detector is: a staged backbone, a neck and a head, trained on prepared batches, asked for
detections in eval mode.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dbf_ray.detectors.backbones import FrozenFeatures, StagedBackbone
from dbf_ray.detectors.compiled import Backend, CompiledOutputs
from dbf_ray.detectors.postprocess import Candidates, select_detections
from dbf_ray.detectors.precision import no_autocast, uncached_autocast
from dbf_ray.errors import DataError
from dbf_ray.geometry import DistanceAngleCoder, RotatedBoxCoder, canonicalize

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE_DIVISOR = 32
Targets = list[dict[str, Any]]  # checked: boxes [n, 5] float32, labels int64 [n], seed int


@dataclass(frozen=True)
class Batch:
    """Images ready for the network, with what each prediction should become.

    Attributes:
        images: float [B, 3, H, W], normalised, padded at the right and the bottom to multiples of 32.
        sizes: (height, width) of each image before padding.
        assignment: the detector's own targets; None without targets.
        normalizers: float [k], what the detector's losses are divided by, counted over this batch.
        orientations: (image, orientation) of each image, names that together say what is seen; None where the
            targets do not tell.
        frozen: features of the frozen prefix, where they are known already; None: the backbone computes them.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    assignment: Any
    normalizers: Tensor
    orientations: list[tuple[str, str]] | None = None
    frozen: FrozenFeatures | None = None

    @property
    def padded(self) -> tuple[int, int]:
        """(height, width) of all images after padding."""
        return self.images.shape[-2], self.images.shape[-1]


def padded_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The smallest (height, width) in multiples of 32 that holds images of all ``sizes`` (height, width).

    Raises:
        DataError: there are no images.
    """
    if not sizes:
        raise DataError("a batch must have at least one image, got none")
    height, width = (math.ceil(max(side) / SIZE_DIVISOR) * SIZE_DIVISOR for side in zip(*sizes, strict=True))
    return height, width


class Detector(nn.Module, ABC):
    """Base of the oriented detectors.

    Training is in two steps, so that losses can be normalised over an effective batch that is spread over
    micro-batches and ranks: ``batch = detector.prepare(images, targets)`` counts ``batch.normalizers``, and
    ``detector(batch, normalizers)`` gives losses divided by the normalizers that the caller has summed up.
    ``detector(images, targets)`` does both for a batch that stands alone.

    Args:
        backbone: its stages from ``levels_from`` on feed the pyramid.
        num_classes: C.
        levels_from: 0-based stage of the pyramid's finest input.

    Attributes:
        minimum_counts: the least that each normalizer counts for, so that a batch without objects divides by
            no zero.
        least_pad_to: the least (height, width), multiples of 32, that images are padded to; (0, 0) unless
            somebody sets it.
    """

    minimum_counts: tuple[float, ...] = (1.0,)
    backbone: StagedBackbone
    neck: nn.Module
    head: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(self, backbone: StagedBackbone, num_classes: int, levels_from: int) -> None:
        super().__init__()
        self.backbone = backbone
        backbone.read_from = levels_from
        self.num_classes = num_classes
        self.levels_from = levels_from
        self.least_pad_to = (0, 0)
        self._compiled: CompiledOutputs | None = None
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(3, 1, 1), persistent=False)

    def forward(
        self, images: Batch | Sequence[Tensor], targets: Sequence[Mapping[str, Any]] | Tensor | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training mode, detections in eval mode.

        Args:
            images: a prepared :class:`Batch`, or images [3, H_i, W_i], uint8 or float in [0, 1].
            targets: with a Batch the normalizers [k] to divide by (None: its own); with images one dict each
                as :meth:`prepare` takes them. Needed in training mode.

        Returns:
            In training mode name -> scalar loss. In eval mode for each image ``boxes`` [n, 5] in its pixels,
            canonical, ``scores`` [n], best first, and ``labels`` [n].

        Raises:
            DataError: training without targets, or targets that do not fit the images or the classes.
        """
        if isinstance(images, Batch):
            batch = images
            if self.training and batch.assignment is None:
                raise DataError(
                    "a batch to train on must have been prepared with targets, this one was not; call "
                    "prepare(images, targets)"
                )
        elif self.training and not isinstance(targets, Sequence):
            raise DataError(
                "a detector in training mode needs targets, one dict of boxes and labels for each image"
            )
        else:
            batch = self.prepare(images, targets if isinstance(targets, Sequence) else None)
        if not self.training:
            with uncached_autocast(batch.images.device):
                return self.detect(batch)
        return self.losses(
            batch, targets if isinstance(targets, Tensor) else self.at_least(batch.normalizers)
        )

    @torch.no_grad()
    def prepare(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Mapping[str, Any]] | None = None,
        pad_to: tuple[int, int] | None = None,
    ) -> Batch:
        """Normalise and pad images to one tensor on the detector's device, and assign the targets if there
        are any.

        Args:
            images: [3, H_i, W_i], uint8 or float in [0, 1]; at least one.
            targets: one dict each of ``boxes``, oriented [n, 5] or horizontal (x1, y1, x2, y2) [n, 4], and
                ``labels`` [n]. Optionally ``seed``, a number that fixes what is sampled from the image
                (two-stage detectors); without it torch's global generator draws one; and ``image_id`` and
                ``orientation``, names that together say what is seen.
            pad_to: (height, width) to pad to, multiples of 32; None: the smallest that holds the images.
                Never less than ``least_pad_to``.
        """
        device = self.mean.device
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        needed = padded_size(sizes)
        height, width = (max(sides) for sides in zip(pad_to or needed, self.least_pad_to, strict=True))
        if height % SIZE_DIVISOR or width % SIZE_DIVISOR or height < needed[0] or width < needed[1]:
            raise DataError(
                f"a pad_to must be multiples of {SIZE_DIVISOR} that hold all images, {needed} or more here, "
                f"got {(height, width)}"
            )
        padded = torch.zeros(len(images), 3, height, width, device=device)
        for slot, image, (h, w) in zip(padded, images, sizes, strict=True):
            image = image.to(device, non_blocking=True)
            image = image.float() / 255 if image.dtype == torch.uint8 else image.float()
            slot[:, :h, :w] = (image - self.mean) / self.std
        assignment, normalizers = None, torch.ones(1, device=device)
        if targets is not None:
            with no_autocast(device):
                assignment, normalizers = self.assign(
                    self._checked(targets, len(images), device), sizes, (height, width)
                )
        orientations = None
        if targets and all("image_id" in target and "orientation" in target for target in targets):
            orientations = [(str(target["image_id"]), str(target["orientation"])) for target in targets]
        return Batch(padded, sizes, assignment, normalizers, orientations)

    def at_least(self, counts: Tensor) -> Tensor:
        """Counts [k] of a whole effective batch, none below what it may be divided by."""
        return counts.maximum(counts.new_tensor(self.minimum_counts))

    def compile(self, backend: Backend = "inductor") -> None:
        """Let :meth:`outputs` run compiled from now on, one graph for each frozen prefix and mode; all else
        stays eager.

        Unlike ``nn.Module.compile``, which would compile losses and suppression too. Copies of the detector
        are not compiled.

        Args:
            backend: of ``torch.compile``.
        """
        self._compiled = CompiledOutputs(backend)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_compiled": None}

    def outputs(self, images: Tensor, frozen: FrozenFeatures | None = None) -> list[Tensor]:
        """:meth:`dense_outputs`, compiled if :meth:`compile` was called."""
        return (
            self.dense_outputs(images, frozen)
            if self._compiled is None
            else self._compiled(self, images, frozen)
        )

    def pyramid(self, images: Tensor, frozen: FrozenFeatures | None = None) -> list[Tensor]:
        """Maps [B, C, H_l, W_l] of the neck, fine to coarse, for normalised images [B, 3, H, W] or what
        frozen stages gave for them.
        """
        given = self.backbone.frozen_features(images) if frozen is None else frozen
        levels: list[Tensor] = self.neck(self.backbone(images, given)[self.levels_from :])
        if unread := [p.sum() for p in self.backbone.output_parameters(self.levels_from) if p.requires_grad]:
            # norms of outputs that nobody reads: DDP waits for their gradients
            levels[0] = levels[0] + 0 * torch.stack(unread).sum()
        return levels

    def _checked(self, targets: Sequence[Mapping[str, Any]], count: int, device: torch.device) -> Targets:
        if len(targets) != count:
            raise DataError(
                f"targets must have one dict for each image, got {len(targets)} for {count} images"
            )
        result: Targets = []
        for index, target in enumerate(targets):
            boxes, labels = (
                torch.as_tensor(target["boxes"]).as_subclass(Tensor),
                torch.as_tensor(target["labels"]),
            )
            if boxes.shape not in ((len(labels), 5), (len(labels), 4)):
                raise DataError(
                    f"targets[{index}]: boxes must be [n, 5] (cx, cy, w, h, degrees) or [n, 4] (x1, y1, x2, "
                    f"y2) with n = {len(labels)} labels, got {tuple(boxes.shape)}"
                )
            if len(labels) and (labels.is_floating_point() or labels.dtype == torch.bool):
                raise DataError(f"targets[{index}]: labels must be integers, got {labels.dtype}")
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
                raise DataError(
                    f"targets[{index}]: labels must be in 0..{self.num_classes - 1}, got "
                    f"{sorted(set(labels.tolist()))}"
                )
            seed = target["seed"] if "seed" in target else int(torch.randint(2**31, ()))
            boxes = boxes.float()
            boxes = canonicalize(upright(boxes) if boxes.shape[-1] == 4 else boxes)
            wrong = (
                torch.nonzero(~(boxes.isfinite().all(-1) & (boxes[:, 2:4] > 0).all(-1))).flatten().tolist()
            )
            if wrong:
                raise DataError(
                    f"targets[{index}]: boxes must be finite and have sides > 0, got "
                    f"{target['boxes'][wrong[0]].tolist()} at {wrong[0]}; leave objects without an area out"
                )
            result.append({"boxes": boxes.to(device), "labels": labels.long().to(device), "seed": seed})
        return result

    @abstractmethod
    def assign(
        self, targets: Targets, sizes: list[tuple[int, int]], padded: tuple[int, int]
    ) -> tuple[Any, Tensor]:
        """The detector's own targets for a batch, and the counts [k] its losses are divided by."""

    @abstractmethod
    def losses(self, batch: Batch, normalizers: Tensor) -> dict[str, Tensor]:
        """Named scalar losses in float32, divided by ``normalizers`` [k]. Every trained parameter takes part,
        also without objects.
        """

    @abstractmethod
    def detect(self, batch: Batch) -> list[dict[str, Tensor]]:
        """Detections of each image: ``boxes`` [n, 5] in its pixels, canonical, ``scores`` [n], best first,
        ``labels`` [n].
        """

    @abstractmethod
    def dense_outputs(self, images: Tensor, frozen: FrozenFeatures | None = None) -> list[Tensor]:
        """Raw outputs of backbone, neck and dense head for normalised images [B, 3, H, W]; tensors in,
        tensors out, no targets.

        Args:
            images: normalised.
            frozen: as :meth:`.StagedBackbone.forward` takes it; to be handed to :meth:`pyramid`.

        Losses and detections take them from :meth:`outputs`.
        """

    def network_outputs(self, images: Tensor) -> list[Tensor]:
        """All that costs FLOPs and nothing else, for normalised images [B, 3, H, W]; works on the meta
        device.
        """
        return self.dense_outputs(images)


class OneStageDetector(Detector):
    """A detector whose losses and detections follow from the dense outputs alone. These run under autocast,
    what follows in float32.
    """

    coder: RotatedBoxCoder | DistanceAngleCoder
    topk_candidates: int
    score_threshold: float
    nms_threshold: float
    detections_per_image: int

    def losses(self, batch: Batch, normalizers: Tensor) -> dict[str, Tensor]:
        """See :meth:`Detector.losses`."""
        outputs = self.outputs(batch.images, batch.frozen)
        with no_autocast(batch.images.device):
            return self.losses_from(outputs, batch, normalizers)

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[dict[str, Tensor]]:
        """See :meth:`Detector.detect`."""
        outputs = self.outputs(batch.images, batch.frozen)
        with no_autocast(batch.images.device):
            return self.detections_from(outputs, batch)

    @abstractmethod
    def losses_from(self, outputs: list[Tensor], batch: Batch, normalizers: Tensor) -> dict[str, Tensor]:
        """Losses from what :meth:`dense_outputs` gave."""

    @abstractmethod
    def level_candidates(self, outputs: list[Tensor], batch: Batch) -> Iterator[list[Candidates]]:
        """Of each of the batch's images what :meth:`dense_outputs` gave on each level, in float32."""

    def detections_from(self, outputs: list[Tensor], batch: Batch) -> list[dict[str, Tensor]]:
        """Detections from what :meth:`dense_outputs` gave, called without gradients: decode the best of each
        level and suppress within each class.
        """
        results = []
        for size, found in zip(batch.sizes, self.level_candidates(outputs, batch), strict=True):
            levels = [level.best(self.topk_candidates) for level in found]
            factors = [level.factors for level in levels if level.factors is not None]
            results.append(
                select_detections(
                    torch.cat([self.coder.decode(level.places, level.predicted, size) for level in levels]),
                    torch.cat([level.scores for level in levels]),
                    self.score_threshold,
                    self.nms_threshold,
                    self.detections_per_image,
                    torch.cat(factors) if factors else None,
                )
            )
        return results


def upright(boxes: Tensor) -> Tensor:
    """Oriented boxes [N, 5] at angle 0 from horizontal ones (x1, y1, x2, y2) [N, 4]."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low, boxes.new_zeros(len(boxes), 1)], -1)
