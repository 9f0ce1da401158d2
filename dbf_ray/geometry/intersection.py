"""Area that two oriented boxes share, pair by pair, exact but for rounding in float64; and how it changes
when a box does.

Both boxes are written in the frame of the first, the window |x| <= W, |y| <= H. The area is the integral over
x in [-W, W] of the second box's slice at x, its two ends limited to [-H, H]. The ends run along the four
edges of the second box, so the integral is a sum of four terms, each the mean of a limited straight line
times a width: no vertices to find or to sort, and nothing special where edges lie on each other or corners
touch.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-12  # of the size: an edge that runs less than this along an axis stands still there
_COINCIDE = 1e-9  # of the pair's size: parallel edges nearer than this lie on each other


def frames(boxes: Tensor) -> Tensor:
    """Rows [6, N] (cx, cy, half w, half h, cos, sin) in float64 of boxes [N, 5]; a negative side counts as
    0.
    """
    columns = boxes.double().T
    angle = torch.deg2rad(columns[4])
    return torch.cat(
        [columns[:2], columns[2:4].clamp(min=0) / 2, torch.stack([torch.cos(angle), torch.sin(angle)])]
    )


def areas(frame: Tensor) -> Tensor:
    """Areas [P] of frames [6, P]."""
    return 4 * frame[2] * frame[3]


def relative(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frames ``b`` [6, P] as seen from ``a`` [6, P]: shift along a's w and along its h, cosine and sine of
    the turn from a to b.
    """
    dx, dy = b[0] - a[0], b[1] - a[1]
    x, y = dx * a[4] - dy * a[5], dx * a[5] + dy * a[4]
    return x, y, a[4] * b[4] + a[5] * b[5], a[4] * b[5] - a[5] * b[4]


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Shared areas [P] of frames [6, P], not below 0 and not above the smaller box but for rounding; no
    gradient.
    """
    width, height = a[2], a[3]
    x, y, cos, sin = relative(a, b)
    # a mirror image of the pair, where needed: then b is turned by 0 to 90 degrees
    y = torch.copysign(y, y * cos * sin)
    cos, sin = cos.abs_(), sin.abs_()
    size = (b[2] + b[3]).mul_(_TINY).add_(1e-300)
    # halves of b's sides: (ux, -uy) and (vx, vy)
    ux, uy, vx, vy = (b[2] * cos, b[2] * sin, b[3] * sin, b[3] * cos)
    left, right, low, high = x - ux, x + ux, y + uy, y - uy
    # [5, P], around b and back
    corner_x = torch.stack([left + vx, left - vx, right - vx, right + vx, left + vx])
    corner_y = torch.stack([low + vy, low - vy, high - vy, high + vy, low + vy])
    # [2, P], of the edges in turn
    slope = torch.stack([vy / torch.maximum(vx, size), -uy / torch.maximum(ux, size)])
    inside_x = corner_x.clamp(-width, width)
    moved = inside_x - corner_x
    start, end = (  # [4, P]: y of each edge's ends, once x is limited to the window
        torch.addcmul(corner_y[part].unflatten(0, (2, 2)), moved[part].unflatten(0, (2, 2)), slope).flatten(
            0, 1
        )
        for part in (slice(0, 4), slice(1, 5))
    )
    start_in, end_in = start.clamp(-height, height), end.clamp(-height, height)
    # of the edge, not cut off by the limits
    share = (end_in - start_in).abs_() / torch.maximum((end - start).abs_(), size)
    mean = torch.addcmul(end_in, share, start.sub_(start_in.add_(end_in), alpha=0.5))
    return mean.mul_(inside_x[:4] - inside_x[1:]).sum(0)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [P] of frames [6, P] in float64; 0 where neither has an area. No gradient."""
    both = areas(a) + areas(b)
    shared = torch.minimum(intersection(a, b).clamp_(min=0), both / 2)
    return shared / (both - shared).clamp_(min=1e-300)


def change(a: Tensor, b: Tensor) -> Tensor:
    """Derivative [5, P] of the shared area by (cx, cy, w, h, angle in radians) of ``a``, for frames ``a``,
    ``b`` [6, P].

    A side of ``a`` that moves outwards adds area in proportion to the part of it inside ``b``; a turn adds
    the first moments of those parts. Where a side lies on a side of ``b`` the area grows one way only: half
    is counted, so that equal boxes, which overlap best, pull nowhere.
    """
    length, moment = _sides_inside(a, b)  # [2, 2, P]
    # along w: the right side less the left one; along h
    across = (length[0, 1] - length[0, 0], length[1, 1] - length[1, 0])
    cos, sin = a[4], a[5]
    turn = moment[0, 1] - moment[0, 0] - moment[1, 1] + moment[1, 0]
    center = [across[0] * cos + across[1] * sin, across[1] * cos - across[0] * sin]
    return torch.stack([*center, length[0].sum(0) / 2, length[1].sum(0) / 2, turn])


def _sides_inside(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Of the sides of ``a`` the parts inside ``b``: lengths and first moments about their middles [2, 2, P].

    First index: sides at the two ends of w, sides at the two ends of h; second index: the low end and the
    high one.
    """
    x, y, cos, sin = relative(b, a)  # a as seen from b: its w runs along (cos, -sin), its h along (sin, cos)
    half = torch.stack([a[3], a[2]])[:, None]  # [2, 1, P], half the length of the sides
    ends = torch.stack([-a[2:4], a[2:4]], 1)  # [2, 2, P]
    normal, along = (
        torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])]),
        torch.stack([torch.stack([sin, cos]), torch.stack([cos, -sin])]),
    )
    # [2, 2, 2, P]: x and y in b's frame, then the sides
    middle = torch.stack([x, y])[:, None, None] + normal[:, :, None] * ends
    step = along[:, :, None].expand_as(middle)
    bound = b[2:4, None, None]
    size = torch.maximum(a[2:4].amax(0), b[2:4].amax(0))
    level = step.abs() * half <= _COINCIDE * size  # the side runs along a side of b
    safe = torch.where(level, torch.ones_like(step), step)
    center, reach = -middle / safe, bound / safe.abs()
    gap = bound - middle.abs()
    weight = torch.where(
        level, (torch.sign(gap) * (gap.abs() > _COINCIDE * size) + 1) / 2, torch.ones_like(gap)
    ).prod(0)
    unbounded = torch.full_like(center, torch.inf)
    low = torch.where(level, -unbounded, center - reach).amax(0)
    high = torch.where(level, unbounded, center + reach).amin(0)
    low, high = torch.maximum(low, -half), torch.minimum(high, half)
    length = (high - low).clamp(min=0)
    return length * weight, length * (low + high) / 2 * weight
