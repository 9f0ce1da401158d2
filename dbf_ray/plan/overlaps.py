"""How well the anchors of a grid can overlap an object, looking only at the cells within its reach.

An anchor and an object share at least .4 of their union only if the centre of the smaller lies on the larger:
with areas a <= A they share I >= .4 / 1.4 (a + A) >= .57 a, and a line through the smaller's centre halves
it, so that no side of the larger may pass on this side of the centre. And two convex shapes that are
symmetric about their centres share most where these coincide (Brunn and Minkowski): shapes that share less
there need not be placed at all. So few cells are in an object's reach, and what an upper bound of their
overlap leaves is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dbf_ray.geometry.intersection import frames
from dbf_ray.geometry.iou import iou_of_pairs

LEAST = 0.4  # overlaps below it are not told apart
_PAIRS_AT_ONCE = 1 << 12
_ROUNDING = 1e-5  # pixels and relative: what a bound may be wrong by in float32


def best_overlaps(
    boxes: Tensor, grids: Tensor, shapes: Tensor, strides: Sequence[int], center: float = 0.0
) -> Tensor:
    """The best IoU of each object with each anchor shape, over all cells of all levels; see :func:`overlaps`.

    Returns:
        float32 [M, S]; 0 where it is below :data:`LEAST`.
    """
    return overlaps(boxes, grids, shapes, strides, center=center)[0]


def overlaps(
    boxes: Tensor,
    grids: Tensor,
    shapes: Tensor,
    strides: Sequence[int],
    thresholds: Sequence[float] = (),
    center: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """What objects share with each anchor shape, over all cells of all levels.

    Args:
        boxes: objects [M, 5], pixels and degrees.
        grids: (height, width) [M, 2] in pixels of the area that each object's cells are on.
        shapes: anchors [S, 3]: width and height in strides, angle in degrees.
        strides: of the levels, pixels.
        thresholds: T of them, each :data:`LEAST` or more.
        center: of an anchor in its cell, in strides from the cell's corner.

    Returns:
        The best IoU, float32 [M, S], 0 where it is below :data:`LEAST`; and how many cells have an IoU of a
        threshold or more, float32 [T, M, S].
    """
    best = torch.zeros(len(boxes), len(shapes))
    counts = torch.zeros(len(thresholds), len(boxes), len(shapes))
    boxes, grids, shapes = boxes.double(), grids.double(), shapes.double()
    for stride in strides:
        areas, own = shapes[:, :2].prod(-1) * stride**2, boxes[:, 2] * boxes[:, 3]
        least = LEAST * (1 - _ROUNDING) * torch.maximum(areas, own[:, None])
        alike = torch.minimum(areas, own[:, None]) >= least
        for pairs in torch.nonzero(alike).split(_PAIRS_AT_ONCE):
            slots, found = _of_pairs(pairs, boxes, grids, shapes, stride, center)
            best.view(-1).scatter_reduce_(0, slots, found, "amax")
            for count, threshold in zip(counts, thresholds, strict=True):
                count.view(-1).index_add_(0, slots, (found >= threshold).float())
    return torch.where(best >= LEAST, best, 0.0), counts


def _of_pairs(
    pairs: Tensor, boxes: Tensor, grids: Tensor, shapes: Tensor, stride: int, center: float
) -> tuple[Tensor, Tensor]:
    """Slots [K] in [M, S] and IoUs [K] of pairs (object, shape) [P, 2], at each cell of a level where it may
    be :data:`LEAST` or more.
    """
    anchors = torch.cat([boxes[pairs[:, 0], :2], shapes[pairs[:, 1]]], -1)
    anchors[:, 2:4] *= stride
    alike = _iou(anchors, boxes[pairs[:, 0]]) >= LEAST * (1 - _ROUNDING)  # about one centre: the most
    anchors, pairs = anchors[alike], pairs[alike]
    pair, cells = _within_reach(anchors, boxes[pairs[:, 0]], grids[pairs[:, 0]], stride, center)
    placed, own = torch.cat([cells, anchors[pair, 2:]], -1), boxes[pairs[pair, 0]]
    able = _bound(placed, own) >= LEAST
    slots = (pairs[:, 0] * len(shapes) + pairs[:, 1])[pair[able]]
    return slots, _iou(placed[able], own[able]).float()


def _iou(a: Tensor, b: Tensor) -> Tensor:
    index = torch.arange(len(a))
    return iou_of_pairs(frames(a), frames(b), index, index)


def _within_reach(
    anchors: Tensor, boxes: Tensor, grids: Tensor, stride: int, center: float
) -> tuple[Tensor, Tensor]:
    """Pairs' numbers [K] and anchor centres [K, 2] of all cells at which the smaller box's centre lies on the
    larger.
    """
    larger = torch.where(
        (anchors[:, 2] * anchors[:, 3] >= boxes[:, 2] * boxes[:, 3])[:, None], anchors, boxes
    )
    cos, sin = _cos_sin(larger[:, 4])
    half = larger[:, 2:4] / 2 + _ROUNDING * stride
    reach = torch.stack(
        [half[:, 0] * cos.abs() + half[:, 1] * sin.abs(), half[:, 0] * sin.abs() + half[:, 1] * cos.abs()], -1
    )
    cells_on = torch.ceil(grids.flip(-1) / stride - center)  # (x, y); an anchor's centre lies on the grid
    low = torch.ceil((boxes[:, :2] - reach) / stride - center).clamp(min=0)
    high = torch.minimum(torch.floor((boxes[:, :2] + reach) / stride - center), cells_on - 1)
    counts = (high - low + 1).clamp(min=0).long()
    total = counts.prod(-1)
    pair = torch.repeat_interleave(torch.arange(len(boxes)), total)
    within = torch.arange(len(pair)) - (total.cumsum(0) - total)[pair]
    columns = counts[pair, 0].clamp(min=1)
    cell = torch.stack([low[pair, 0] + within % columns, low[pair, 1] + within // columns], -1)
    place = (cell + center) * stride
    along, across = _in_frame(place - boxes[pair, :2], cos[pair], sin[pair])
    on = (along.abs() <= half[pair, 0]) & (across.abs() <= half[pair, 1])
    return pair[on], place[on]


def _bound(anchors: Tensor, boxes: Tensor) -> Tensor:
    """No less than the IoU of pairs of boxes [K, 5]: of the area of one, what lies within the extent of the
    other along its own axes.
    """
    shared = torch.minimum(_overlap_along(anchors, boxes), _overlap_along(boxes, anchors))
    areas = anchors[:, 2] * anchors[:, 3] + boxes[:, 2] * boxes[:, 3]
    return shared / (areas - shared) * (1 + _ROUNDING)


def _overlap_along(boxes: Tensor, others: Tensor) -> Tensor:
    cos, sin = _cos_sin(boxes[:, 4])
    along, across = _in_frame(others[:, :2] - boxes[:, :2], cos, sin)
    turn_cos, turn_sin = (part.abs() for part in _cos_sin(others[:, 4] - boxes[:, 4]))
    w, h = others[:, 2], others[:, 3]
    shared = [
        torch.minimum((side + extent) / 2 - offset.abs(), torch.minimum(side, extent)).clamp(min=0)
        for side, extent, offset in (
            (boxes[:, 2], w * turn_cos + h * turn_sin, along),
            (boxes[:, 3], w * turn_sin + h * turn_cos, across),
        )
    ]
    return torch.minimum(shared[0] * shared[1], w * h)


def _cos_sin(degrees: Tensor) -> tuple[Tensor, Tensor]:
    radians = torch.deg2rad(degrees)
    return radians.cos(), radians.sin()


def _in_frame(offset: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets [K, 2] along the axes of boxes turned counter-clockwise as seen in the image (y down)."""
    x, y = offset.unbind(-1)
    return x * cos - y * sin, x * sin + y * cos
