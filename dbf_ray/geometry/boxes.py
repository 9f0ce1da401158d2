"""The box convention, and conversions that keep to it.

A box is torchvision's ``CXCYWHR``: (cx, cy, w, h, angle), pixels and *degrees, counter-clockwise as seen in
the image* (y points down). The side w runs along u = (cos a, -sin a), the side h along v = (sin a, cos a).
Canonical form: w >= h, angle in [-90, 90). Corners are (x1, y1, ..., x4, y4), clockwise as seen, from the
corner that is the top left one at angle 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dbf_ray.errors import DataError


def canonicalize(boxes: Tensor) -> Tensor:
    """Write boxes in canonical form: w >= h and angle in [-90, 90); the covered area does not change.

    Args:
        boxes: [..., 5] (cx, cy, w, h, angle in degrees).
    """
    center, w, h, angle = boxes[..., :2], boxes[..., 2], boxes[..., 3], boxes[..., 4]
    tall = h > w
    angle = torch.remainder(torch.where(tall, angle + 90, angle) + 90, 180) - 90
    # remainder of a tiny negative number rounds up to 180
    angle = torch.where(angle >= 90, angle - 180, angle)
    return torch.cat([center, torch.stack([torch.maximum(w, h), torch.minimum(w, h), angle], -1)], -1)


def axes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors [..., 2] along w and along h of boxes [..., 5], in image coordinates (y down)."""
    angle = torch.deg2rad(boxes[..., 4])
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)


def boxes_to_corners(boxes: Tensor) -> Tensor:
    """Corners [N, 8] of boxes [N, 5], clockwise as seen in the image, first the top left one of the unrotated
    box.
    """
    u, v = axes(boxes)
    half_w, half_h = u * boxes[..., 2:3] / 2, v * boxes[..., 3:4] / 2
    center = boxes[..., :2]
    corners = [
        center - half_w - half_h,
        center + half_w - half_h,
        center + half_w + half_h,
        center - half_w + half_h,
    ]
    return torch.cat(corners, -1)


def corners_to_boxes(corners: Tensor) -> Tensor:
    """Minimum-area rectangles [N, 5], canonical, around quadrilaterals [N, 8] (x1, y1, ..., x4, y4), in any
    corner order.

    A minimum-area rectangle has a side along an edge of the convex hull (Freeman and Shapira, 1975). The
    hull's edges are among the six lines through two of the four points, and every line gives an enclosing
    rectangle, so the smallest of the six is the answer.
    """
    if corners.shape[-1] != 8:
        raise DataError(
            "corners must have 8 numbers each (x1, y1, ..., x4, y4), got a tensor of shape "
            f"{tuple(corners.shape)}"
        )
    points = corners.double().unflatten(-1, (4, 2))  # [N, 4, 2]
    first, second = torch.triu_indices(4, 4, 1, device=corners.device)
    edges = points[..., second, :] - points[..., first, :]  # [N, 6, 2]
    length = edges.norm(dim=-1, keepdim=True)
    u = torch.where(length > 0, edges / length.clamp(min=1e-300), edges.new_tensor([1.0, 0.0]))
    v = torch.stack([-u[..., 1], u[..., 0]], -1)
    along, across = (torch.einsum("...pk,...ek->...ep", points, axis) for axis in (u, v))  # [N, 6, 4]
    w, h = along.amax(-1) - along.amin(-1), across.amax(-1) - across.amin(-1)
    best = (w * h).argmin(-1, keepdim=True)  # [N, 1]
    middle_u, middle_v = ((value.amax(-1) + value.amin(-1)).gather(-1, best) / 2 for value in (along, across))
    u, v = (axis.gather(-2, best[..., None].expand(*best.shape, 2)).squeeze(-2) for axis in (u, v))
    center = middle_u * u + middle_v * v
    angle = torch.rad2deg(torch.atan2(-u[..., 1], u[..., 0]))
    boxes = torch.cat([center, w.gather(-1, best), h.gather(-1, best), angle[..., None]], -1)
    return canonicalize(boxes).to(corners.dtype if corners.is_floating_point() else torch.float32)


def circumscribed(boxes: Tensor) -> Tensor:
    """Smallest axis-aligned boxes (x1, y1, x2, y2) [..., 4] around oriented boxes [..., 5]."""
    u, v = axes(boxes)
    half = (u.abs() * boxes[..., 2:3] + v.abs() * boxes[..., 3:4]) / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)
