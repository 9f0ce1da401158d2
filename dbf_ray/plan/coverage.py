"""Coverage: the share of objects that a detector's own assignment gives anything to learn from.

- RetinaNet: an anchor overlaps the object by ``positive_iou`` or more. (Its assignment gives any other object
  its best anchor, too, however poor.)
- Proposal networks: any anchor stands for it after the whole assignment, the rule for an object's best anchor
  included.
- FCOS: at least one point stands for it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dbf_ray.detectors import Detector, padded_size
from dbf_ray.detectors.anchors import HorizontalAnchors, level_shapes
from dbf_ray.detectors.assigners import assign_by_iou, assign_points
from dbf_ray.detectors.fcos import RotatedFCOS
from dbf_ray.detectors.retinanet import RotatedRetinaNet
from dbf_ray.detectors.rpn import RegionProposalNetwork, upright_iou, within
from dbf_ray.detectors.two_stage import TwoStageDetector
from dbf_ray.geometry import circumscribed
from dbf_ray.plan.objects import Objects
from dbf_ray.plan.overlaps import best_overlaps

FEW_POINTS = 3


@dataclass(frozen=True)
class Coverage:
    """What a detector makes of objects, in V views of each.

    Attributes:
        matched: bool [V, n]: covered.
        strength: float [V, n]: the best IoU of an anchor (0 below .4), or how many points or anchors stand
            for the object.
    """

    matched: Tensor
    strength: Tensor

    def share(self, which: Tensor | None = None) -> float:
        """Share of (view, object) pairs that are covered; NaN without objects."""
        chosen = self.matched if which is None else self.matched[:, which]
        return chosen.float().mean().item() if chosen.numel() else math.nan

    def share_of(self, least: float, which: Tensor | None = None) -> float:
        """Share of pairs with at least this ``strength``."""
        return Coverage(self.strength >= least, self.strength).share(which)


def coverage(detector: Detector, shown: Iterable[Objects], chosen: Tensor) -> Coverage | None:
    """What ``detector`` makes of the objects ``chosen`` [n], in each of the views ``shown``.

    Args:
        detector: with any weights.
        shown: the same objects in several views (:func:`.objects.views`).
        chosen: indices of the objects to look at; others take anchors and points from them as in training.

    Returns:
        None for a detector of a kind that is not known here.
    """
    if isinstance(detector, RotatedRetinaNet):
        strength = [_best_iou(detector, view.pick(chosen)) for view in shown]
        least: float = detector.positive_iou
    elif isinstance(detector, TwoStageDetector):
        strength, least = [_anchors(detector.rpn, view, chosen) for view in shown], 1
    elif isinstance(detector, RotatedFCOS):
        strength, least = [_points(detector, view, chosen) for view in shown], 1
    else:
        return None
    stacked = torch.stack(strength)
    return Coverage(stacked >= least, stacked)


def anchor_shapes(detector: RotatedRetinaNet) -> Tensor:
    """Width and height in strides, and angle in degrees, [A, 3] of a detector's anchors at a cell."""
    upright, angles = detector.anchors.upright.base, detector.anchors.angles
    sides = (upright[:, 2:] - upright[:, :2])[:, None].expand(-1, len(angles), 2)
    return torch.cat([sides, angles.expand(len(upright), -1)[..., None]], -1).reshape(-1, 3)


def _best_iou(detector: RotatedRetinaNet, objects: Objects) -> Tensor:
    overlaps = best_overlaps(
        objects.boxes, grids_of(objects), anchor_shapes(detector), detector.anchors.strides
    )
    return overlaps.amax(-1)


def grids_of(objects: Objects) -> Tensor:
    """(height, width) [n, 2] of the padded image of each object."""
    padded = [padded_size([(height, width)]) for height, width in objects.sizes.tolist()]
    return torch.tensor(padded).reshape(-1, 2)[objects.image]


def _points(detector: RotatedFCOS, objects: Objects, chosen: Tensor) -> Tensor:
    """How many points stand for each chosen object."""
    counts = torch.zeros(len(objects))
    for image, own in _by_image(objects, chosen):
        shapes = level_shapes(padded_size([image]), detector.strides)
        boxes = objects.boxes[own].float()
        taken = assign_points(shapes, detector.strides, boxes, detector.ranges, detector.center_radius)
        counts[own] = torch.bincount(taken[taken >= 0], minlength=len(own)).float()
    return counts[chosen]


def _anchors(rpn: RegionProposalNetwork, objects: Objects, chosen: Tensor) -> Tensor:
    """How many anchors of a proposal network stand for each chosen object."""
    counts = torch.zeros(len(objects))
    for image, own in _by_image(objects, chosen):
        boxes = objects.boxes[own].float()
        anchors = _upright_in_reach(rpn.anchors, boxes, image, rpn.negative_iou)
        taken = assign_by_iou(
            functools.partial(upright_iou, anchors),
            len(anchors),
            boxes,
            rpn.positive_iou,
            rpn.negative_iou,
            rpn.negative_iou,
        )
        counts[own] = torch.bincount(taken[taken >= 0], minlength=len(own)).float()
    return counts[chosen]


def _upright_in_reach(grid: HorizontalAnchors, boxes: Tensor, size: tuple[int, int], least: float) -> Tensor:
    """All anchors [K, 4] of an image that share ``least`` or more with any of the objects [M, 5], in their
    order; a few more are among them.
    """
    padded, found, first = padded_size([size]), [], 0
    around = circumscribed(boxes)
    for stride, (rows, columns) in zip(grid.strides, level_shapes(padded, grid.strides), strict=True):
        for number, base in enumerate(grid.base * stride):
            sides, own = base[2:] - base[:2], around[:, 2:] - around[:, :2]
            areas, shared = sides.prod(), torch.minimum(own, sides).prod(-1)
            able = shared >= least * 0.99 * (own.prod(-1) + areas - shared)
            # along each axis they share at least this much of the larger side
            slack = (own + sides) / 2 - least * 0.99 * torch.maximum(own, sides)
            middle = (around[:, 2:] + around[:, :2]) / 2
            low = torch.ceil((middle - slack) / stride)[able].clamp(min=0).long()
            high = torch.floor((middle + slack) / stride)[able].long()
            high = torch.minimum(high, torch.tensor([columns - 1, rows - 1]))
            spans = (high - low + 1).clamp(min=0)
            total = spans.prod(-1)
            row = torch.repeat_interleave(torch.arange(len(low)), total)
            within_span = torch.arange(len(row)) - (total.cumsum(0) - total)[row]
            x = low[row, 0] + within_span % spans[row, 0].clamp(min=1)
            y = low[row, 1] + within_span // spans[row, 0].clamp(min=1)
            cells = torch.unique(y * columns + x)
            corner = torch.stack([cells % columns, cells // columns], -1).float() * stride
            found.append((first + cells * len(grid.base) + number, corner.repeat(1, 2) + base))
        first += rows * columns * len(grid.base)
    order = torch.cat([index for index, _ in found]).argsort()
    anchors = torch.cat([boxes for _, boxes in found])[order]
    return anchors[within(anchors, size)]


def _by_image(objects: Objects, chosen: Tensor) -> Iterable[tuple[tuple[int, int], Tensor]]:
    """(height, width) and the indices of all objects of each image that holds a chosen one."""
    order = objects.image.argsort(stable=True)
    starts = torch.searchsorted(objects.image[order], torch.arange(len(objects.sizes) + 1))
    for image in objects.image[chosen].unique().tolist():
        height, width = objects.sizes[image].tolist()
        yield (height, width), order[starts[image] : starts[image + 1]]
