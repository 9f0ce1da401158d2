"""Coverage: the share of objects that a detector's own assignment gives anything to learn from.

- RetinaNet: an anchor overlaps the object by ``positive_iou`` or more. (Its assignment gives any other object
  its best anchor, too, however poor.)
- Proposal networks: any anchor stands for it after the whole assignment, the rule for an object's best anchor
  included.
- FCOS: at least one point stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dbf_ray.detectors import Detector
from dbf_ray.detectors.base import SIZE_DIVISOR
from dbf_ray.detectors.fcos import RotatedFCOS
from dbf_ray.detectors.retinanet import RotatedRetinaNet
from dbf_ray.detectors.rpn import RegionProposalNetwork
from dbf_ray.detectors.two_stage import TwoStageDetector
from dbf_ray.plan.objects import Objects
from dbf_ray.plan.overlaps import best_overlaps
from dbf_ray.plan.taken import Placed, anchors_taken, points_taken

FEW_POINTS = 3
_AT_ONCE = 4000  # objects, and those of one image more


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
    upright, angles = detector.anchors.upright.base.cpu(), detector.anchors.angles.cpu()
    sides = (upright[:, 2:] - upright[:, :2])[:, None].expand(-1, len(angles), 2)
    return torch.cat([sides, angles.expand(len(upright), -1)[..., None]], -1).reshape(-1, 3)


def _best_iou(detector: RotatedRetinaNet, objects: Objects) -> Tensor:
    overlaps = best_overlaps(
        objects.boxes, grids_of(objects), anchor_shapes(detector), detector.anchors.strides
    )
    return overlaps.amax(-1)


def grids_of(objects: Objects) -> Tensor:
    """(height, width) [n, 2] of the padded image of each object."""
    return _padded(objects.sizes)[objects.image]


def _padded(sizes: Tensor) -> Tensor:
    return (sizes + SIZE_DIVISOR - 1) // SIZE_DIVISOR * SIZE_DIVISOR


def _points(detector: RotatedFCOS, objects: Objects, chosen: Tensor) -> Tensor:
    """How many points stand for each chosen object."""
    return _counted(
        lambda placed: points_taken(placed, detector.strides, detector.ranges, detector.center_radius),
        objects,
        chosen,
    )


def _anchors(rpn: RegionProposalNetwork, objects: Objects, chosen: Tensor) -> Tensor:
    """How many anchors of a proposal network stand for each chosen object."""
    return _counted(
        lambda placed: anchors_taken(placed, rpn.anchors, rpn.positive_iou, rpn.negative_iou),
        objects,
        chosen,
    )


def _counted(count: Callable[[Placed], Tensor], objects: Objects, chosen: Tensor) -> Tensor:
    """``count`` of all objects of the images that hold a chosen one, some images at a time; of the chosen."""
    needed = torch.zeros(len(objects.sizes), dtype=torch.bool)
    needed[objects.image[chosen]] = True
    order = objects.image.argsort(stable=True)
    order = order[needed[objects.image[order]]]
    counts = torch.zeros(len(objects))
    per_image = torch.bincount(objects.image[order], minlength=len(objects.sizes))
    part_of = (per_image.cumsum(0) - per_image) // _AT_ONCE  # an image is in one part
    for own in order.split(torch.bincount(part_of[objects.image[order]]).tolist()):
        images, image = torch.unique(objects.image[own], return_inverse=True)
        sizes = objects.sizes[images]
        counts[own] = count(Placed(objects.boxes[own].float(), image, sizes, _padded(sizes))).float()
    return counts[chosen]
