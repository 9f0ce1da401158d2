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
from dbf_ray.geometry import circumscribed
from dbf_ray.plan.kinds import assigns_as
from dbf_ray.plan.objects import Objects
from dbf_ray.plan.overlaps import best_overlaps
from dbf_ray.plan.taken import Placed, anchors_taken, points_taken

FEW_POINTS = 3
_AT_ONCE = 4000  # objects, and those of one image more
_PAIRS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Coverage:
    """What a detector makes of objects, in V views of each.

    Attributes:
        matched: bool [V, n]: covered.
        strength: float [V, n]: the best IoU of an anchor (0 below .4), or how many points or anchors stand
            for the object.
        held: float [n], 1; of patches, the share of the objects of its class that a patch holds whole: the
            others count as not covered.
    """

    matched: Tensor
    strength: Tensor
    held: Tensor

    def share(self, which: Tensor | None = None) -> float:
        """Share of (view, object) pairs that are covered; NaN without objects."""
        chosen = self.matched * self.held
        chosen = chosen if which is None else chosen[:, which]
        return chosen.mean().item() if chosen.numel() else math.nan

    def share_of(self, least: float, which: Tensor | None = None) -> float:
        """Share of pairs with at least this ``strength``."""
        return Coverage(self.strength >= least, self.strength, self.held).share(which)


def coverage(detector: Detector, shown: Iterable[Objects], chosen: Tensor) -> Coverage | None:
    """What ``detector`` makes of the objects ``chosen`` [n], in each of the views ``shown``.

    Args:
        detector: with any weights.
        shown: the same objects in one or several views (:func:`.objects.views`).
        chosen: indices of the objects to look at; others take anchors and points from them as in training.

    Returns:
        None for a detector of a kind that is not known here.
    """
    look: Callable[[Objects, Tensor], Tensor]
    if isinstance(detector, RotatedRetinaNet) and assigns_as(type(detector), RotatedRetinaNet):
        look, least = functools.partial(_best_iou, detector), detector.positive_iou
    elif isinstance(detector, TwoStageDetector):
        look, least = functools.partial(_anchors, detector.rpn), 1.0
    elif isinstance(detector, RotatedFCOS) and assigns_as(type(detector), RotatedFCOS):
        look, least = functools.partial(_points, detector), 1.0
    else:
        return None
    found, held = [], torch.ones(len(chosen))
    for view in shown:
        found.append(look(view, chosen))
        if view.held is not None:
            held = view.held.float()[view.labels[chosen]]
    strength = torch.stack(found)
    return Coverage(strength >= least, strength, held)


def anchor_shapes(detector: RotatedRetinaNet) -> Tensor:
    """Width and height in strides, and angle in degrees, [A, 3] of a detector's anchors at a cell."""
    upright, angles = detector.anchors.upright.base.cpu(), detector.anchors.angles.cpu()
    sides = (upright[:, 2:] - upright[:, :2])[:, None].expand(-1, len(angles), 2)
    return torch.cat([sides, angles.expand(len(upright), -1)[..., None]], -1).reshape(-1, 3)


def _best_iou(detector: RotatedRetinaNet, objects: Objects, chosen: Tensor) -> Tensor:
    """The best overlap of an anchor with each chosen object."""
    some = objects.pick(chosen)
    return best_overlaps(some.boxes, grids_of(some), anchor_shapes(detector), detector.anchors.strides).amax(
        -1
    )


def grids_of(objects: Objects) -> Tensor:
    """(height, width) [n, 2] of the padded image of each object."""
    return _padded(objects.sizes)[objects.image]


def _padded(sizes: Tensor) -> Tensor:
    return (sizes + SIZE_DIVISOR - 1) // SIZE_DIVISOR * SIZE_DIVISOR


def _points(detector: RotatedFCOS, objects: Objects, chosen: Tensor) -> Tensor:
    """How many points stand for each chosen object."""
    reach = objects.boxes[:, 2:4].norm(dim=-1, keepdim=True).expand(-1, 2) / 2  # they lie inside of it
    return _counted(
        lambda placed: points_taken(placed, detector.strides, detector.ranges, detector.center_radius),
        objects,
        chosen,
        reach,
    )


def _anchors(rpn: RegionProposalNetwork, objects: Objects, chosen: Tensor) -> Tensor:
    """How many anchors of a proposal network stand for each chosen object."""
    around, least = circumscribed(objects.boxes), max(rpn.negative_iou, 1e-6)
    # an anchor that shares so much with an object is 1 / least times as long at most, and centred so near
    reach = (around[:, 2:] - around[:, :2]) * max(1 - least, (1 / least - 1) / 2)
    return _counted(
        lambda placed: anchors_taken(placed, rpn.anchors, rpn.positive_iou, rpn.negative_iou),
        objects,
        chosen,
        reach,
    )


def _counted(count: Callable[[Placed], Tensor], objects: Objects, chosen: Tensor, reach: Tensor) -> Tensor:
    """``count`` of the chosen objects, some images at a time, beside those that may take from them.

    Args:
        count: of objects on their images.
        objects, chosen: see :func:`coverage`.
        reach: [N, 2], how far from an object's centre what stands for it may be, along x and y.
    """
    order = torch.nonzero(_concerned(objects, chosen, reach)).squeeze(-1)
    order = order[objects.image[order].argsort(stable=True)]
    counts = torch.zeros(len(objects))
    per_image = torch.bincount(objects.image[order], minlength=len(objects.sizes))
    part_of = (per_image.cumsum(0) - per_image) // _AT_ONCE  # an image is in one part
    for own in order.split(torch.bincount(part_of[objects.image[order]]).tolist()):
        images, image = torch.unique(objects.image[own], return_inverse=True)
        sizes = objects.sizes[images]
        counts[own] = count(Placed(objects.boxes[own].float(), image, sizes, _padded(sizes))).float()
    return counts[chosen]


def _concerned(objects: Objects, chosen: Tensor, reach: Tensor) -> Tensor:
    """Which of the objects [N] are chosen, or may share an anchor or point with one that is."""
    order = objects.image.argsort(stable=True)
    per_image = torch.bincount(objects.image, minlength=len(objects.sizes))
    starts = per_image.cumsum(0) - per_image
    found = torch.zeros(len(objects), dtype=torch.bool)
    many = int(per_image[objects.image[chosen]].max()) if len(chosen) else 1
    for some in chosen.split(max(1, _PAIRS_AT_ONCE // many)):
        total = per_image[objects.image[some]]
        one = torch.repeat_interleave(some, total)
        within = torch.arange(len(one)) - torch.repeat_interleave(total.cumsum(0) - total, total)
        other = order[starts[objects.image[one]] + within]
        apart = (objects.boxes[one, :2] - objects.boxes[other, :2]).abs()
        found[other[(apart <= (reach[one] + reach[other]) * 1.001 + 0.01).all(-1)]] = True
    return found
