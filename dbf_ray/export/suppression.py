"""Overlap and greedy suppression of oriented boxes in numpy alone, for where an exported detector runs.

The same arithmetic as :mod:`dbf_ray.geometry`, in float64: the second box is written in the frame of the
first, and the shared area is the integral of its slices, an exact sum over its four edges. Boxes are (cx, cy,
w, h, angle), pixels and degrees, counter-clockwise as seen in the image (y points down).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dbf_ray.errors import DataError

Floats = NDArray[np.float64]
_TINY = 1e-12  # of the size: an edge that runs less than this along an axis stands still there


def suppress_rotated(
    boxes: ArrayLike, scores: ArrayLike, labels: ArrayLike, iou_threshold: float
) -> NDArray[np.int64]:
    """Indices of the kept boxes, best first. A box is suppressed if its IoU with a better kept one of the
    same label is >= ``iou_threshold``.

    The same answer as torch's side gives (:func:`dbf_ray.geometry.batched_nms_rotated`).

    Args:
        boxes: [N, 5] (cx, cy, w, h, angle in degrees).
        scores: [N]; of equal ones the first is the better.
        labels: [N], of classes.
        iou_threshold: in (0, 1]; compared as float32.

    Raises:
        DataError: shapes that do not fit, or a threshold out of range.
    """
    each, rank, label = _boxes(boxes), np.asarray(scores), np.asarray(labels)
    if rank.shape != (len(each),) or label.shape != (len(each),):
        raise DataError(
            f"scores and labels must have shape [{len(each)}], one for each box, got {rank.shape} and "
            f"{label.shape}"
        )
    if not 0 < iou_threshold <= 1:
        raise DataError(f"iou_threshold must be in (0, 1], got {iou_threshold!r}; a detector has its own")
    reach = np.hypot(each[:, 2], each[:, 3]) / 2
    left, kept = np.argsort(-rank, kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        apart = np.hypot(*(each[left, :2] - each[best, :2]).T)
        near = np.flatnonzero((label[left] == label[best]) & (apart <= reach[left] + reach[best]))
        overlap = rotated_iou(np.broadcast_to(each[best], (len(near), 5)), each[left[near]])
        left = np.delete(left, near[overlap.astype(np.float32) >= np.float32(iou_threshold)])
    return np.array(kept, np.int64)


def rotated_iou(a: ArrayLike, b: ArrayLike) -> Floats:
    """Intersection over union [N] of the pairs (a[i], b[i]) of boxes [N, 5]; 0 for one without an area.

    Raises:
        DataError: shapes are not [N, 5] and equal.
    """
    first, second = _boxes(a), _boxes(b)
    if first.shape != second.shape:
        raise DataError(f"boxes must come in pairs, got shapes {first.shape} and {second.shape}")
    both = first[:, 2] * first[:, 3] + second[:, 2] * second[:, 3]
    shared = np.clip(_shared_area(first, second), 0, both / 2)
    return np.nan_to_num(shared / np.maximum(both - shared, 1e-300))


def _shared_area(a: Floats, b: Floats) -> Floats:
    """Areas [N] that boxes [N, 5] share, exact but for rounding."""
    angle, turn = np.radians(a[:, 4]), np.radians(b[:, 4] - a[:, 4])
    dx, dy = (b[:, :2] - a[:, :2]).T
    x, y = dx * np.cos(angle) - dy * np.sin(angle), dx * np.sin(angle) + dy * np.cos(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    # a mirror image of the pair, where needed: then b is turned by 0 to 90 degrees
    y, cos, sin = np.copysign(y, y * cos * sin), np.abs(cos), np.abs(sin)
    width, height, w, h = a[:, 2] / 2, a[:, 3] / 2, b[:, 2] / 2, b[:, 3] / 2
    size = (w + h) * _TINY + 1e-300
    # halves of b's sides: (ux, -uy) and (vx, vy)
    ux, uy, vx, vy = w * cos, w * sin, h * sin, h * cos
    # [5, N], around b and back
    corner_x = np.stack([x - ux + vx, x - ux - vx, x + ux - vx, x + ux + vx, x - ux + vx])
    corner_y = np.stack([y + uy + vy, y + uy - vy, y - uy - vy, y - uy + vy, y + uy + vy])
    along, across = vy / np.maximum(vx, size), -uy / np.maximum(ux, size)
    slope = np.stack([along, across, along, across])
    inside = np.clip(corner_x, -width, width)
    # y of each edge's ends [4, N], once x is limited to the first box, and once y is too
    start = corner_y[:4] + (inside[:4] - corner_x[:4]) * slope
    end = corner_y[1:] + (inside[1:] - corner_x[1:]) * slope
    start_in, end_in = np.clip(start, -height, height), np.clip(end, -height, height)
    share = np.abs(end_in - start_in) / np.maximum(np.abs(end - start), size)
    mean = end_in + share * (start - (start_in + end_in) / 2)
    return np.asarray((mean * (inside[:4] - inside[1:])).sum(0))


def _boxes(values: ArrayLike) -> Floats:
    """Boxes [N, 5] in float64, no side below 0."""
    boxes = np.array(values, np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(-1, 5)
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise DataError(f"boxes must have shape [N, 5] (cx, cy, w, h, angle), got {boxes.shape}")
    boxes[:, 2:4] = np.maximum(boxes[:, 2:4], 0)
    return boxes
