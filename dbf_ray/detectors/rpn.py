"""A region proposal network (Faster R-CNN, arXiv 1506.01497): where anything is, whatever its class."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou

from dbf_ray.detectors.anchors import HorizontalAnchors, level_shapes
from dbf_ray.detectors.assigners import IGNORED, assign_by_iou
from dbf_ray.detectors.base import Targets, padded_size
from dbf_ray.detectors.heads import RPNHead
from dbf_ray.detectors.losses import binary_cross_entropy, l1_loss
from dbf_ray.detectors.regions import Regions
from dbf_ray.detectors.samplers import sample
from dbf_ray.geometry import circumscribed

Size = tuple[int, int]


@dataclass(frozen=True)
class RPNAssignment:
    """What is learned from the B * N anchors of a batch.

    Attributes:
        sampled: int64 [S], indices of the drawn anchors, positives first within each image.
        objectness: float [S], 1 where an object is.
        positive: int64 [P], indices of the drawn positives.
        deltas: float [P, D], what their boxes should be.
    """

    sampled: Tensor
    objectness: Tensor
    positive: Tensor
    deltas: Tensor


class RegionProposalNetwork(nn.Module):
    """Head, anchors, targets and proposals (mmdet's ``RPNHead``; MMRotate's ``OrientedRPNHead`` with oriented
    regions).

    Args:
        channels: of the pyramid.
        strides: of the pyramid's levels, in pixels.
        regions: upright or oriented; decides how an object is encoded and what a proposal is.
        num_convs: 3 x 3 convolutions before the two outputs.
        scales, ratios: of the anchors; see :class:`.anchors.HorizontalAnchors`.
        positive_iou, negative_iou: thresholds of the assignment by upright overlap; an object's best anchor
            needs ``negative_iou``.
        samples, positive_fraction: anchors drawn of each image, and at most which share of positives; samples
            None takes all.
        nms_threshold: upright IoU at which a better proposal of the same level suppresses.
        candidates: anchors kept per level before suppression.
        proposals: proposals kept per image.
        loss_beta: kink of the smooth L1 loss.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        regions: Regions,
        *,
        num_convs: int,
        scales: Sequence[float],
        ratios: Sequence[float],
        positive_iou: float,
        negative_iou: float,
        samples: int | None,
        positive_fraction: float,
        nms_threshold: float,
        candidates: int,
        proposals: int,
        loss_beta: float = 1 / 9,
    ) -> None:
        super().__init__()
        self.regions = regions
        self.anchors = HorizontalAnchors(strides, scales, ratios)
        self.head = RPNHead(channels, num_convs, self.anchors.per_cell, regions.code_size)
        self.positive_iou, self.negative_iou = positive_iou, negative_iou
        self.samples, self.positive_fraction = samples, positive_fraction
        self.nms_threshold, self.candidates, self.max_proposals = nms_threshold, candidates, proposals
        self.loss_beta = loss_beta

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness logits and deltas of each level; see :class:`.heads.RPNHead`."""
        logits, deltas = self.head(levels)
        return logits, deltas

    def assign(self, targets: Targets, sizes: Sequence[Size], padded: Size) -> tuple[RPNAssignment, int]:
        """Assign and draw anchors; those that reach past an image's border are ignored. Also the number
        drawn, over which losses are averaged.

        An image without positives (or negatives) counts one all the same, as in the reference.
        """
        anchors = torch.cat(self.anchors(level_shapes(padded, self.anchors.strides)))
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        count = 0
        for index, (target, size) in enumerate(zip(targets, sizes, strict=True)):
            inside = torch.nonzero(within(anchors, size)).squeeze(-1)
            object_of = torch.full((len(anchors),), IGNORED, dtype=torch.int64, device=anchors.device)
            overlap = functools.partial(upright_iou, anchors[inside])
            object_of[inside] = assign_by_iou(
                overlap, len(inside), target["boxes"], self.positive_iou, self.negative_iou, self.negative_iou
            )
            generator = torch.Generator().manual_seed(target["seed"])
            positive, negative = sample(object_of, self.samples, self.positive_fraction, generator)
            wanted = self.regions.encode_objects(anchors[positive], target["boxes"][object_of[positive]])
            first = index * len(anchors)
            objectness = torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]).float()
            parts.append((torch.cat([positive, negative]) + first, objectness, positive + first, wanted))
            count += max(len(positive), 1) + max(len(negative), 1)
        return RPNAssignment(*(torch.cat(column) for column in zip(*parts, strict=True))), count

    def losses(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], wanted: RPNAssignment, normalizer: Tensor
    ) -> dict[str, Tensor]:
        """Cross-entropy of the drawn anchors and smooth L1 of the positives' deltas, both divided by
        ``normalizer``.
        """
        scores = torch.cat(list(logits), 1).float().flatten()
        predicted = torch.cat(list(deltas), 1).float().flatten(0, 1)
        return {
            "rpn_classification": binary_cross_entropy(scores[wanted.sampled], wanted.objectness)
            / normalizer,
            "rpn_regression": l1_loss(predicted[wanted.positive], wanted.deltas, self.loss_beta) / normalizer,
        }

    @torch.no_grad()
    def propose(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], sizes: Sequence[Size], padded: Size
    ) -> list[Tensor]:
        """The best regions of each image, at most ``proposals``, best first: upright [n, 4] or oriented [n,
        5]. No gradient.

        Regions that are not finite once a training has diverged are left out. Those that clipping has left
        without an area stay, as in MMRotate 0.3.4: nothing suppresses them, and they count as background.
        """
        anchors = self.anchors(level_shapes(padded, self.anchors.strides))
        return [
            self._propose(
                [level[index, :, 0] for level in logits], [level[index] for level in deltas], anchors, size
            )
            for index, size in enumerate(sizes)
        ]

    def _propose(
        self, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], size: Size
    ) -> Tensor:
        scores, codes, bases, levels = [], [], [], []
        for number, (logit, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
            # not on what other images of the batch are larger by
            own = torch.nonzero(_on(anchor, padded_size([size]))).squeeze(-1)
            score, order = logit[own].float().sigmoid().sort(descending=True, stable=True)
            order = own[order[: self.candidates]]
            scores.append(score[: self.candidates])
            codes.append(delta.float()[order])
            bases.append(anchor[order])
            levels.append(torch.full_like(order, number))
        found = self.regions.decode_proposals(torch.cat(bases), torch.cat(codes), size)
        sound = torch.nonzero(found.isfinite().all(-1)).squeeze(-1)
        found, score, level = found[sound], torch.cat(scores)[sound], torch.cat(levels)[sound]
        keep = batched_nms(self.regions.upright(found), score, level, self.nms_threshold)
        return found[keep[: self.max_proposals]]


def upright_iou(anchors: Tensor, boxes: Tensor) -> Tensor:
    """IoU [N, m] of anchors [N, 4] with the upright boxes around objects [m, 5]."""
    return box_iou(anchors, circumscribed(boxes))


def _on(anchors: Tensor, size: Size) -> Tensor:
    """Whether anchors [N, 4] are centred on an area of ``size`` (height, width)."""
    return ((anchors[:, 0] + anchors[:, 2]) / 2 < size[1]) & ((anchors[:, 1] + anchors[:, 3]) / 2 < size[0])


def within(anchors: Tensor, size: Size) -> Tensor:
    """Which of the anchors [N, 4] lie wholly on an image of ``size`` (height, width)."""
    height, width = size
    return (anchors[:, 0] >= 0) & (anchors[:, 1] >= 0) & (anchors[:, 2] < width) & (anchors[:, 3] < height)
