"""Overlap of oriented boxes: all pairs (no gradient) and aligned pairs (differentiable).

Nearly all pairs of anchors and objects do not touch. Those that may come from :mod:`.pairs`, and only their
shared area is computed, by :mod:`.intersection`. torchvision's own kernel (0.29) is not used: it is slower,
and it loses vertices, so that it answers .33 for two boxes whose IoU is 1 and .000002 for a pair of an anchor
and an object whose IoU is .106 (docs/geometry.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dbf_ray.errors import DataError
from dbf_ray.geometry.intersection import areas, change, frames, overlap
from dbf_ray.geometry.pairs import bounds, meeting
from dbf_ray.geometry.pieces import at_once, pick

_NO_AREA = 1e-30  # square pixels: the IoU of smaller pairs has no gradient, so that it stays finite


def box_iou_rotated(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [N, M], float32, of every box of ``a`` [N, 5] with every box of ``b`` [M, 5];
    no gradient.

    Boxes are (cx, cy, w, h, angle in degrees); a box without area has IoU 0 with everything.

    Raises:
        DataError: an argument is not of shape [*, 5].
    """
    check_boxes(a, b)
    result = _zeros(len(a) * len(b), a.device)
    for rows, columns, iou in _touching(a, b):
        result.index_copy_(0, rows * len(b) + columns, iou)
    return result.view(len(a), len(b))


def _zeros(count: int, device: torch.device) -> Tensor:
    """Zeros [``count``]. numpy asks the system for large pages, which for matrices of 100 MB takes a third of
    the time that torch takes.
    """
    return (
        torch.from_numpy(np.zeros(count, dtype=np.float32))
        if device.type == "cpu"
        else torch.zeros(count, device=device)
    )


def overlapping_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entries above 0 of :func:`box_iou_rotated`, without the matrix: rows [P], columns [P], IoU [P]
    (float32), in no order.
    """
    check_boxes(a, b)
    none = torch.zeros(0, dtype=torch.int64, device=a.device)
    pieces = [(none, none, torch.zeros(0, device=a.device))]
    for rows, columns, iou in _touching(a, b):
        above = torch.nonzero(iou > 0).squeeze(-1)
        pieces.append(
            (rows.index_select(0, above), columns.index_select(0, above), iou.index_select(0, above))
        )
    rows, columns, iou = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return rows, columns, iou


def _touching(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows, columns and IoU of pairs that may touch, piece by piece."""
    first, second = frames(a.detach()), frames(b.detach())
    for rows, columns in meeting(bounds(first), bounds(second)):
        yield rows, columns, iou_of_pairs(first, second, rows, columns)


def iou_of_pairs(a: Tensor, b: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """IoU [P], float32, of pairs (``rows`` [P], ``columns`` [P]) of frames ``a`` [6, N], ``b`` [6, M]; 0
    where a number is not finite.
    """
    size = at_once(a.device, len(a))
    pieces = [
        overlap(pick(a, row), pick(b, column)).float()
        for row, column in zip(rows.split(size), columns.split(size), strict=True)
    ]
    return torch.cat(pieces).nan_to_num_(0.0)


def box_iou_rotated_aligned(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [N] of the pairs (a[i], b[i]) of boxes [N, 5]; differentiable, computed in
    float64.

    The gradient is the exact one, in closed form, and finite everywhere: 0 for boxes that do not touch and
    for equal ones, towards more overlap for nested ones and for a box without area on another. Where the IoU
    has a kink (sides that lie on each other) it is the middle of the slopes to both sides. Positions are
    taken relative to each other, so far-away coordinates lose no precision that the inputs have.

    Returns:
        float64 if an argument is, else float32 (half precision is too coarse for a result).

    Raises:
        DataError: shapes are not [N, 5] and equal.
    """
    check_boxes(a, b)
    if a.shape != b.shape:
        raise DataError(f"aligned boxes must have equal shapes, got {tuple(a.shape)} and {tuple(b.shape)}")
    result: Tensor = _AlignedIoU.apply(a.double(), b.double())
    return result.to(torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32))


class _AlignedIoU(torch.autograd.Function):
    """IoU [N] of boxes [N, 5], float64, with its gradient in closed form."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        first, second = frames(a), frames(b)
        iou = overlap(first, second)
        ctx.save_for_backward(first, second, iou)
        return iou

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        first, second, iou = ctx.saved_tensors
        needed = ctx.needs_input_grad
        return _slope(first, second, iou, grad) if needed[0] else None, _slope(
            second, first, iou, grad
        ) if needed[1] else None


def _slope(a: Tensor, b: Tensor, iou: Tensor, grad: Tensor) -> Tensor:
    """Gradient [N, 5] of the IoU of frames [6, N] by the boxes of ``a``, times ``grad`` [N].

    With shared area I and union U = A + B - I, d(I / U) = ((1 + IoU) dI - IoU dA) / U.
    """
    shared = change(a, b) * (1 + iou)
    shared[2] -= iou * 2 * a[3]
    shared[3] -= iou * 2 * a[2]
    union = (areas(a) + areas(b)) / (1 + iou)
    shared[4] = torch.deg2rad(shared[4])
    return torch.where(union > _NO_AREA, shared * (grad / union), 0.0).T


def check_boxes(*groups: Tensor) -> None:
    """Raise DataError unless every argument has shape [N, 5]."""
    for boxes in groups:
        if boxes.ndim != 2 or boxes.shape[-1] != 5:
            raise DataError(f"boxes must have shape [N, 5] (cx, cy, w, h, angle), got {tuple(boxes.shape)}")
