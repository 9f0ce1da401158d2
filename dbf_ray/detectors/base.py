"""What every detector is: a staged backbone, a neck and a head, trained on prepared batches, asked for detections in eval mode."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dbf_ray.detectors.backbones import StagedBackbone
from dbf_ray.errors import DataError
from dbf_ray.geometry import canonicalize

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE_DIVISOR = 32


@dataclass(frozen=True)
class Batch:
    """Images ready for the network, with what each prediction should become.

    Attributes:
        images: float [B, 3, H, W], normalised, padded at the right and the bottom to multiples of 32.
        sizes: (height, width) of each image before padding.
        assignment: the detector's own targets; None without targets.
        normalizers: float [k], what the detector's losses are divided by, counted over this batch.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    assignment: Any
    normalizers: Tensor


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

    Training is in two steps, so that losses can be normalised over an effective batch that is spread over micro-batches and ranks:
    ``batch = detector.prepare(images, targets)`` counts ``batch.normalizers``, and ``detector(batch, normalizers)`` gives losses divided by the
    normalizers that the caller has summed up. ``detector(images, targets)`` does both for a batch that stands alone.
    """

    backbone: StagedBackbone
    neck: nn.Module
    head: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(3, 1, 1), persistent=False)

    def forward(
        self, images: Batch | Sequence[Tensor], targets: Sequence[Mapping[str, Any]] | Tensor | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training mode, detections in eval mode.

        Args:
            images: a prepared :class:`Batch`, or images [3, H_i, W_i], uint8 or float in [0, 1].
            targets: with a Batch the normalizers [k] to divide by (None: its own); with images one dict each of ``boxes`` [n, 5]
                and ``labels`` [n]. Needed in training mode.

        Returns:
            In training mode name -> scalar loss. In eval mode for each image ``boxes`` [n, 5] in its pixels, canonical, ``scores`` [n], best
            first, and ``labels`` [n].

        Raises:
            DataError: training without targets, or targets that do not fit the images or the classes.
        """
        if isinstance(images, Batch):
            batch = images
        elif self.training and not isinstance(targets, Sequence):
            raise DataError("a detector in training mode needs targets, one dict of boxes and labels for each image")
        else:
            batch = self.prepare(images, targets if isinstance(targets, Sequence) else None)
        if not self.training:
            return self.detect(batch)
        return self.losses(batch, targets if isinstance(targets, Tensor) else batch.normalizers.clamp(min=1))

    @torch.no_grad()
    def prepare(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]] | None = None, canvas: tuple[int, int] | None = None
    ) -> Batch:
        """Normalise and pad images to one tensor on the detector's device, and assign the targets if there are any.

        Args:
            images: [3, H_i, W_i], uint8 or float in [0, 1]; at least one.
            targets: one dict each of ``boxes`` [n, 5] and ``labels`` [n].
            canvas: (height, width) to pad to, multiples of 32; None: the smallest that holds the images.
        """
        device = self.mean.device
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        height, width = canvas or padded_size(sizes)
        padded = torch.zeros(len(images), 3, height, width, device=device)
        for slot, image, (h, w) in zip(padded, images, sizes, strict=True):
            image = image.to(device, non_blocking=True)
            image = image.float() / 255 if image.dtype == torch.uint8 else image.float()
            slot[:, :h, :w] = (image - self.mean) / self.std
        assignment, normalizers = None, torch.ones(1, device=device)
        if targets is not None:
            assignment, normalizers = self.assign(self._checked(targets, len(images), device), sizes, (height, width))
        return Batch(padded, sizes, assignment, normalizers)

    def _checked(self, targets: Sequence[Mapping[str, Any]], count: int, device: torch.device) -> list[dict[str, Tensor]]:
        if len(targets) != count:
            raise DataError(f"targets must have one dict for each image, got {len(targets)} for {count} images")
        result = []
        for index, target in enumerate(targets):
            boxes, labels = torch.as_tensor(target["boxes"]).as_subclass(Tensor), torch.as_tensor(target["labels"])
            if boxes.shape != (len(labels), 5):
                raise DataError(f"targets[{index}]: boxes must be [n, 5] with n = {len(labels)} labels, got {tuple(boxes.shape)}")
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
                raise DataError(f"targets[{index}]: labels must be in 0..{self.num_classes - 1}, got {sorted(set(labels.tolist()))}")
            result.append({"boxes": canonicalize(boxes.float().to(device)), "labels": labels.to(device)})
        return result

    @abstractmethod
    def assign(self, targets: list[dict[str, Tensor]], sizes: list[tuple[int, int]], padded: tuple[int, int]) -> tuple[Any, Tensor]:
        """The detector's own targets for a batch, and the counts [k] its losses are divided by."""

    @abstractmethod
    def losses(self, batch: Batch, normalizers: Tensor) -> dict[str, Tensor]:
        """Named scalar losses in float32, divided by ``normalizers`` [k]. Every trained parameter takes part, also without objects."""

    @abstractmethod
    def detect(self, batch: Batch) -> list[dict[str, Tensor]]:
        """Detections of each image: ``boxes`` [n, 5] in its pixels, ``scores`` [n], ``labels`` [n]."""

    @abstractmethod
    def network_outputs(self, images: Tensor) -> list[Tensor]:
        """All that costs FLOPs and nothing else: raw outputs for normalised images [B, 3, H, W]; works on the meta device."""
