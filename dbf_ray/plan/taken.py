"""How many anchors or points stand for each object after the whole assignment, for many images at once.

What :func:`.assigners.assign_by_iou` and :func:`.assigners.assign_points` find image by image, with the same
arithmetic: pairs of an object and a cell within its reach, of all images in one table, instead of all cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dbf_ray.detectors.anchors import HorizontalAnchors
from dbf_ray.detectors.assigners import may_stand, point_offsets
from dbf_ray.geometry import circumscribed

_ROUNDING = 1e-4  # relative: what a bound may be wrong by in float32


@dataclass(frozen=True)
class Placed:
    """Objects on their images.

    Attributes:
        boxes: float32 [M, 5], in the order of their images.
        image: int64 [M], which of the I images each is on.
        sizes: int64 [I, 2], height and width of the images in pixels.
        padded: int64 [I, 2], of the padded images.
    """

    boxes: Tensor
    image: Tensor
    sizes: Tensor
    padded: Tensor

    def shapes(self, stride: int) -> Tensor:
        """(height, width) [I, 2] of a level's maps."""
        return (self.padded + stride - 1) // stride


def points_taken(
    objects: Placed, strides: Sequence[int], ranges: Sequence[tuple[float, float]], radius: float
) -> Tensor:
    """How many points [M] stand for each object; see :func:`.assigners.assign_points`."""
    boxes, counts = objects.boxes, torch.zeros(len(objects.boxes), dtype=torch.int64)
    order = torch.argsort(boxes[:, 2] * boxes[:, 3], stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(boxes))
    longest = boxes[:, 2:4].amax(-1)
    for stride, (low, high) in zip(strides, ranges, strict=True):
        # the furthest side of a point inside is at least half of the longest away, and at most all of it
        able = (longest >= low * (1 - _ROUNDING)) & (longest / 2 <= high * (1 + _ROUNDING))
        own = torch.nonzero(able).squeeze(-1)
        pair, cell, offset = _points_near(objects, own, stride, radius)
        stands = may_stand(offset, boxes[pair], radius * stride, low, high)
        places, slot = torch.unique(cell[stands], return_inverse=True)
        best = torch.full((len(places),), len(boxes))
        best.scatter_reduce_(0, slot, rank[pair[stands]], "amin")
        counts += torch.bincount(order[best], minlength=len(boxes))
    return counts


def _points_near(objects: Placed, own: Tensor, stride: int, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of one of the objects ``own`` and a point within sqrt(2) * radius strides of its centre: object
    [K], a number [K] of the point's cell that no other has, and the offset in the object's frame [K, 2].
    """
    reach, shape = radius * 2**0.5, objects.shapes(stride)
    span = torch.arange(int(2 * reach) + 2)
    boxes, image = objects.boxes[own], objects.image[own]
    first = torch.floor(boxes[:, :2] / stride - 0.5 - reach).long()
    x, y = first[:, :1] + span, first[:, 1:] + span
    limit = shape[image]
    inside = ((y >= 0) & (y < limit[:, :1]))[:, :, None] & ((x >= 0) & (x < limit[:, 1:]))[:, None, :]
    box, row, column = torch.nonzero(inside, as_tuple=True)
    cell_x, cell_y = x[box, column], y[box, row]
    points = (torch.stack([cell_x, cell_y], -1) + 0.5) * stride
    starts = _starts(shape.prod(-1))
    cell = starts[image[box]] + cell_y * limit[box, 1] + cell_x
    return own[box], cell, point_offsets(points.to(boxes.dtype), boxes[box])


def anchors_taken(
    objects: Placed, grid: HorizontalAnchors, positive_iou: float, negative_iou: float
) -> Tensor:
    """How many anchors [M] of a proposal network stand for each object; see
    :meth:`.rpn.RegionProposalNetwork.assign` and :func:`.assigners.assign_by_iou`.
    """
    around = circumscribed(objects.boxes)
    parts = list(_overlaps(objects, around, grid, negative_iou))
    pair, anchor, iou = (torch.cat(column) for column in zip(*parts, strict=True))
    places, slot = torch.unique(anchor, return_inverse=True)
    best = torch.zeros(len(places)).scatter_reduce_(0, slot, iou, "amax")
    most = len(around)
    owner = torch.full((len(places),), most)  # of the objects that share most with an anchor the first
    sure = (iou == best[slot]) & (iou >= positive_iou)
    owner.scatter_reduce_(0, slot[sure], pair[sure], "amin")
    top = torch.zeros(most).scatter_reduce_(0, pair, iou, "amax")
    claims = (iou == top[pair]) & (iou >= negative_iou) & (iou > 0)  # of those that claim one the last
    claimed = torch.full((len(places),), -1).scatter_reduce_(0, slot[claims], pair[claims], "amax")
    owner = torch.where(claimed >= 0, claimed, owner)
    return torch.bincount(owner, minlength=most + 1)[:most]


def _overlaps(
    objects: Placed, around: Tensor, grid: HorizontalAnchors, least: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Objects [K], numbers [K] of anchors that no other has, and their overlap [K], of all pairs of an object
    and an anchor wholly on its image that share ``least`` or more.
    """
    base, start = grid.base.cpu(), 0
    low_corner, high_corner = around[:, :2], around[:, 2:]
    own, middle = high_corner - low_corner, (high_corner + low_corner) / 2
    area = own[:, 0] * own[:, 1]
    for stride in grid.strides:
        shape = objects.shapes(stride)
        starts = _starts(shape.prod(-1))
        for number, corners in enumerate(base * stride):
            sides = corners[2:] - corners[:2]
            shared = torch.minimum(own, sides).prod(-1)
            needed = least * (1 - _ROUNDING) * (area + sides.prod() - shared)
            able = torch.nonzero(shared >= needed).squeeze(-1)
            # if they share all that they can along one axis, at least this much along the other
            along = needed[able, None] / torch.minimum(own[able], sides).flip(-1)
            slack = ((own[able] + sides) / 2 - along) * (1 + _ROUNDING) + _ROUNDING * stride
            low = torch.ceil((middle[able] - slack) / stride).clamp(min=0).long()
            high = torch.floor((middle[able] + slack) / stride).long()
            high = torch.minimum(high, shape[objects.image[able]].flip(-1) - 1)
            pair, cell = _cells_between(low, high)
            pair = able[pair]
            placed = cell.float().repeat(1, 2) * stride + corners
            size = objects.sizes[objects.image[pair]].flip(-1)
            on = (placed[:, :2] >= 0).all(-1) & (placed[:, 2:] < size).all(-1)
            pair, cell, placed = pair[on], cell[on], placed[on]
            iou = _iou(placed, around[pair])
            enough = iou >= least
            pair, cell, iou = pair[enough], cell[enough], iou[enough]
            place = starts[objects.image[pair]] + cell[:, 1] * shape[objects.image[pair], 1] + cell[:, 0]
            yield pair, start + place * len(base) + number, iou
        start += int(shape.prod(-1).sum()) * len(base)


def _cells_between(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [K] and cells (x, y) [K, 2] of all whole numbers from ``low`` to ``high`` [M, 2], both of them
    included.
    """
    spans = (high - low + 1).clamp(min=0)
    total = spans.prod(-1)
    row = torch.repeat_interleave(torch.arange(len(low)), total)
    within = torch.arange(len(row)) - _starts(total)[row]
    columns = spans[row, 0].clamp(min=1)
    return row, low[row] + torch.stack([within % columns, within // columns], -1)


def _iou(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Upright overlap of pairs [K, 4], rounded as torchvision's ``box_iou`` rounds."""
    areas = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (anchors, boxes)]
    sides = torch.minimum(anchors[:, 2:], boxes[:, 2:]) - torch.maximum(anchors[:, :2], boxes[:, :2])
    shared = sides.clamp(min=0).prod(-1)
    return shared / (areas[0] + areas[1] - shared)


def _starts(counts: Tensor) -> Tensor:
    return counts.cumsum(0) - counts
