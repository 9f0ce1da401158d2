"""Overlap of oriented boxes: all pairs (fast, no gradient) and aligned pairs (differentiable).

Nearly all pairs of anchors and objects do not touch, so :func:`box_iou_rotated` first compares circumscribed axis-aligned boxes and
gives only the pairs that are left to torchvision's native kernel. That kernel (0.29) loses vertices where edges nearly lie on each
other: on two equal boxes whose angles differ by 1e-5 degrees it answered .71 for an IoU of 1. Pairs of nearly parallel boxes, and
all pairs where torchvision has no such kernel, go to :func:`box_iou_rotated_aligned`.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torchvision.ops import box_iou

from dbf_ray.errors import DataError
from dbf_ray.geometry.boxes import axes, circumscribed

_NATIVE = "fmt" in inspect.signature(box_iou).parameters
_ROWS_AT_ONCE = 1 << 22  # pairs whose circumscribed boxes are compared at once; bounds memory to some tens of MB
_PARALLEL = 0.02  # degrees: nearer directions of sides are not given to the native kernel
_SLACK = 1e-9  # of the pair's size: edges nearer than this are taken to lie on each other


def box_iou_rotated(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [N, M] of every box of ``a`` [N, 5] with every box of ``b`` [M, 5]; no gradient.

    Boxes are (cx, cy, w, h, angle in degrees); a box without area has IoU 0 with everything.

    Raises:
        DataError: an argument is not of shape [*, 5].
    """
    _check(a, b)
    a, b = a.detach().float(), b.detach().float()
    if a.shape[0] < b.shape[0]:
        return box_iou_rotated(b, a).T.contiguous()
    result = a.new_zeros(a.shape[0], b.shape[0])
    if not result.numel():
        return result
    rows, columns = touching_pairs(a, b)
    order = torch.argsort(columns, stable=True)
    rows, columns = rows[order], columns[order]
    counts = torch.bincount(columns, minlength=b.shape[0]).tolist()
    for column, members in enumerate(rows.split(counts)):
        if len(members):
            result[members, column] = _one_to_many(b[column], a[members])
    return result


def touching_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Index pairs (rows of ``a``, rows of ``b``) whose circumscribed axis-aligned boxes overlap; all others have IoU 0."""
    outer_a, outer_b = circumscribed(a), circumscribed(b)
    step = max(1, _ROWS_AT_ONCE // max(1, b.shape[0]))
    rows, columns = [], []
    for start in range(0, a.shape[0], step):
        block = outer_a[start : start + step, None]
        apart = (block[..., :2] >= outer_b[:, 2:]) | (block[..., 2:] <= outer_b[:, :2])
        row, column = torch.nonzero(~apart.any(-1), as_tuple=True)
        rows.append(row + start)
        columns.append(column)
    return torch.cat(rows), torch.cat(columns)


def _one_to_many(box: Tensor, others: Tensor) -> Tensor:
    """IoU [N] of one box [5] with others [N, 5]."""
    if not _NATIVE:
        return box_iou_rotated_aligned(box.expand_as(others), others)
    iou = box_iou(_from(others, box[:2]), _from(box[None], box[:2]), fmt="cxcywhr")[:, 0]
    turn = torch.remainder(others[:, 4] - box[4] + 45, 90) - 45
    parallel = torch.nonzero(turn.abs() < _PARALLEL).squeeze(-1)
    if len(parallel):
        iou[parallel] = box_iou_rotated_aligned(box.expand(len(parallel), 5), others[parallel])
    return torch.nan_to_num(iou).clamp(0, 1)


def _from(boxes: Tensor, origin: Tensor) -> Tensor:
    """Boxes relative to an origin: near it, float32 keeps the precision that large coordinates lose."""
    return torch.cat([boxes[:, :2] - origin, boxes[:, 2:]], -1)


def box_iou_rotated_aligned(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [N] of the pairs (a[i], b[i]) of boxes [N, 5]; differentiable, computed in float64.

    By Green's theorem the area of the intersection is half the sum of cross(p, q) over the pieces p -> q of its boundary, and these are
    the edges of ``a`` clipped to ``b`` and the edges of ``b`` clipped to ``a``: no vertices to sort. Where two edges lie on each other
    (duplicates, nested boxes that share an edge) only that of ``a`` counts: ``a`` is clipped to ``b`` grown, ``b`` to ``a`` shrunk, by the same
    tiny slack. Pairs are centred first, so that far-away coordinates lose no precision.
    """
    _check(a, b)
    if a.shape != b.shape:
        raise DataError(f"aligned boxes must have equal shapes, got {tuple(a.shape)} and {tuple(b.shape)}")
    dtype = a.dtype
    a, b = a.double(), b.double()
    origin = (a[:, :2] + b[:, :2]).detach() / 2
    a, b = torch.cat([a[:, :2] - origin, a[:, 2:]], -1), torch.cat([b[:, :2] - origin, b[:, 2:]], -1)
    slack = _SLACK * torch.maximum(a[:, 2:4].amax(-1), b[:, 2:4].amax(-1)).detach()
    doubled = _clipped_boundary(a, b, slack) + _clipped_boundary(b, a, -slack)
    area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    inter = torch.minimum((doubled / 2).clamp(min=0), torch.minimum(area_a, area_b))
    union = area_a + area_b - inter
    return torch.where(union > 0, inter / union.clamp(min=1e-300), torch.zeros_like(union)).to(dtype)


def _clipped_boundary(subject: Tensor, window: Tensor, slack: Tensor) -> Tensor:
    """Sum [N] of cross(p, q) over the edges p -> q of ``subject`` [N, 5], each clipped to ``window`` [N, 5] grown by ``slack`` [N]."""
    u, v = axes(subject)
    half_w, half_h = u * subject[:, 2:3] / 2, v * subject[:, 3:4] / 2
    center = subject[:, :2]
    start = torch.stack([center - half_w - half_h, center + half_w - half_h, center + half_w + half_h, center - half_w + half_h], 1)
    step = torch.stack([2 * half_w, 2 * half_h, -2 * half_w, -2 * half_h], 1)  # [N, 4, 2]
    frame = torch.stack(axes(window), -1)  # [N, 2, 2], columns are the window's axes
    local, delta = (start - window[:, None, :2]) @ frame, step @ frame
    bound = (window[:, 2:4] / 2 + slack[:, None])[:, None]  # [N, 1, 2]
    parallel = delta.abs() <= 1e-12 * bound.abs().amax(-1, keepdim=True)
    safe = torch.where(parallel, torch.ones_like(delta), delta)
    at_low, at_high = (-bound - local) / safe, (bound - local) / safe
    inside = local.abs() <= bound
    enter = torch.where(parallel, torch.where(inside, 0.0, 2.0).to(local), torch.minimum(at_low, at_high)).amax(-1).clamp(min=0)
    leave = torch.where(parallel, torch.where(inside, 1.0, -1.0).to(local), torch.maximum(at_low, at_high)).amin(-1).clamp(max=1)
    share = (leave - enter).clamp(min=0)  # [N, 4], the share of each edge inside the window
    return (share * (start[..., 0] * step[..., 1] - start[..., 1] * step[..., 0])).sum(-1)


def _check(a: Tensor, b: Tensor) -> None:
    for boxes in (a, b):
        if boxes.ndim != 2 or boxes.shape[-1] != 5:
            raise DataError(f"boxes must have shape [N, 5] (cx, cy, w, h, angle), got {tuple(boxes.shape)}")
