"""Which anchor or point stands for which object."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from dbf_ray.geometry import box_iou_rotated
from dbf_ray.geometry.boxes import axes

BACKGROUND, IGNORED = -1, -2
_KERNEL = "fmt" in inspect.signature(box_iou).parameters  # torchvision >= 0.29 has one for oriented boxes
_PAIRS_AT_ONCE = 1 << 23  # anchors times objects, 32 MB of overlaps
_ROUNDING = 1e-6  # relative: overlaps that differ by less are equal but for a kernel's rounding


def assign_max_iou(
    anchors: Tensor,
    boxes: Tensor,
    positive_iou: float = 0.5,
    negative_iou: float = 0.4,
    low_quality_iou: float = 0.0,
) -> Tensor:
    """:func:`assign_by_iou` of oriented anchors [N, 5] to boxes [M, 5].

    An object that lies wholly inside of several anchors of one area overlaps all of them equally well. Which
    of them it takes is, in the reference, a matter of how its float32 kernel rounds. torchvision's kernel is
    the same arithmetic on mirrored boxes; where there is one it is asked, so that the same anchors are taken.
    """

    def overlap(some: Tensor) -> Tensor:
        iou = box_iou_rotated(anchors, some)
        if _KERNEL and iou.numel():
            _break_ties(iou, anchors, some)
        return iou

    return assign_by_iou(overlap, len(anchors), boxes, positive_iou, negative_iou, low_quality_iou)


def _break_ties(iou: Tensor, anchors: Tensor, boxes: Tensor) -> None:
    """Raise the entries of ``iou`` [N, M] that the reference's kernel holds to be an object's best, among
    those that are best but for rounding.
    """
    top = iou.max(0).values
    anchor, box = torch.nonzero((iou >= top * (1 - _ROUNDING)) & (top > 0), as_tuple=True)
    for number in torch.nonzero(torch.bincount(box, minlength=len(boxes)) > 1).squeeze(-1).tolist():
        tied = anchor[box == number]
        rounded = box_iou(_mirrored(anchors[tied]), _mirrored(boxes[number : number + 1]), fmt="cxcywhr")[
            :, 0
        ]
        iou[tied, number] = torch.where(
            rounded == rounded.max(), top[number], torch.nextafter(top[number], top.new_zeros(()))
        )


def _mirrored(boxes: Tensor) -> Tensor:
    return boxes * boxes.new_tensor([-1.0, 1.0, 1.0, 1.0, -1.0])


def assign_by_iou(
    overlap: Callable[[Tensor], Tensor],
    anchors: int,
    boxes: Tensor,
    positive_iou: float,
    negative_iou: float,
    low_quality_iou: float | None,
) -> Tensor:
    """Assign each anchor the object it overlaps most (mmdet's ``MaxIoUAssigner``).

    An anchor is positive at IoU >= ``positive_iou`` and background at IoU < ``negative_iou``; between them it
    is ignored. Besides, every object takes all anchors that share its own best IoU, if that is >=
    ``low_quality_iou`` and above 0 (later objects win).

    Args:
        overlap: IoU [N, m] of all anchors with some of the objects [m, ...]; called for a block of objects at
            a time, so that memory does not grow with anchors times objects.
        anchors: N.
        boxes: the objects [M, ...].
        positive_iou: least IoU of a positive.
        negative_iou: IoU below which an anchor is background.
        low_quality_iou: least best IoU of an object that may take anchors below ``positive_iou``; None: no
            object may.

    Returns:
        int64 [N]: index of the object, or :data:`BACKGROUND`, or :data:`IGNORED`.
    """
    best = torch.zeros(anchors, device=boxes.device)
    index, claimed = (torch.full((anchors,), -1, dtype=torch.int64, device=boxes.device) for _ in range(2))
    step = max(1, _PAIRS_AT_ONCE // max(1, anchors))
    for start in range(0, len(boxes) if anchors else 0, step):
        iou = overlap(boxes[start : start + step])
        value, where = iou.max(1)
        better = value > best
        best, index = torch.where(better, value, best), torch.where(better, where + start, index)
        if low_quality_iou is not None:
            top = iou.max(0).values
            anchor, box = torch.nonzero((iou == top) & (top >= low_quality_iou) & (top > 0), as_tuple=True)
            claimed.scatter_reduce_(0, anchor, box + start, "amax")
    assigned = torch.where(best >= negative_iou, IGNORED, torch.full_like(index, BACKGROUND))
    assigned = torch.where((best >= positive_iou) & (index >= 0), index, assigned)
    return torch.where(claimed >= 0, claimed, assigned)


def assign_points(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    boxes: Tensor,
    ranges: Sequence[tuple[float, float]],
    radius: float,
) -> Tensor:
    """Assign each cell's centre the object it lies in (FCOS, arXiv 1904.01355, section 3; MMRotate's
    ``RotatedFCOSHead``).

    A point stands for an object if it lies inside of its box, less than ``radius`` strides from its centre
    along both of the box's axes, and the largest of its distances to the four sides is in the level's range.
    Of several objects the smallest wins, then the first. Only cells near a centre can qualify, so only those
    are looked at: the work grows with the objects, not with objects times points.

    Args:
        shapes: (height, width) of each level's map.
        strides: of the levels, in pixels.
        boxes: [M, 5].
        ranges: least and largest distance in pixels, for each level.
        radius: of the centre region, in strides.

    Returns:
        int64 [N] over the points of all levels, row-major: index of the object or :data:`BACKGROUND`.
    """
    counts = [height * width for height, width in shapes]
    order = torch.argsort(boxes[:, 2] * boxes[:, 3], stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(boxes), device=boxes.device)
    best = torch.full((sum(counts),), len(boxes), dtype=torch.int64, device=boxes.device)
    start = 0
    for shape, stride, (low, high), count in zip(shapes, strides, ranges, counts, strict=True):
        box, cell, offset = _cells_near(boxes, shape, stride, radius)
        stands = may_stand(offset, boxes[box], radius * stride, low, high)
        best.scatter_reduce_(0, cell[stands] + start, rank[box[stands]], "amin")
        start += count
    if not len(boxes):
        return torch.full_like(best, BACKGROUND)
    return torch.where(best < len(boxes), order[best.clamp(max=len(boxes) - 1)], BACKGROUND)


def may_stand(offset: Tensor, boxes: Tensor, reach: float, low: float, high: float) -> Tensor:
    """Which points [N] may stand for a box, whatever other boxes there are: see :func:`assign_points`.

    Args:
        offset: of the points from the boxes' centres, along the boxes' own axes [N, 2].
        boxes: of each point [N, 5].
        reach: of the centre region, pixels.
        low, high: least and largest distance to the farthest side, pixels.
    """
    sides = boxes[:, 2:4] / 2
    distances = torch.cat([sides + offset, sides - offset], -1)
    furthest = distances.amax(-1)
    inside = (offset.abs() < reach).all(-1) & (distances.amin(-1) > 0)
    return inside & (furthest >= low) & (furthest <= high)


def point_offsets(points: Tensor, boxes: Tensor) -> Tensor:
    """Offsets [N, 2] of points [N, 2] from the centres of boxes [N, 5], along the boxes' own axes."""
    u, v = axes(boxes)
    shift = points - boxes[:, :2]
    return torch.stack([(shift * u).sum(-1), (shift * v).sum(-1)], -1)


def _cells_near(
    boxes: Tensor, shape: tuple[int, int], stride: int, radius: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of a box and a cell whose centre is within sqrt(2) * radius strides: box [K], cell [K], offset in
    the box's frame [K, 2].
    """
    reach = radius * 2**0.5
    span = torch.arange(int(2 * reach) + 2, device=boxes.device)
    first = torch.floor(boxes[:, :2] / stride - 0.5 - reach).long()  # [M, 2]
    x, y = first[:, :1] + span, first[:, 1:] + span  # [M, S]
    inside = ((y >= 0) & (y < shape[0]))[:, :, None] & ((x >= 0) & (x < shape[1]))[:, None, :]
    box, row, column = torch.nonzero(inside, as_tuple=True)
    cell_x, cell_y = x[box, column], y[box, row]
    points = (torch.stack([cell_x, cell_y], -1) + 0.5) * stride
    return box, cell_y * shape[1] + cell_x, point_offsets(points.to(boxes.dtype), boxes[box])
