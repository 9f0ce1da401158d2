"""Which boxes can overlap at all: pairs of boxes whose circumscribed upright boxes meet.

Nearly all pairs of anchors and objects do not. The boxes of one side are sorted by size and place and put
into tiles of a few neighbours; tiles are compared first, and only the members of tiles that a box meets are
compared one by one. Bounds are float32, rounded outwards: a pair may be named that does not touch, but none
that touches is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dbf_ray.geometry.pieces import at_once, in_pieces, pick

_TILE = 32  # boxes in a tile
_NOTHING = (torch.inf, torch.inf, -torch.inf, -torch.inf)  # bounds that meet none
_DIRECT = 1 << 14  # fewer pairs than this are compared without tiles


def bounds(frame: Tensor) -> Tensor:
    """Circumscribed upright boxes (x1, y1, x2, y2) as float32 rows [4, N] of frames [6, N] (see
    :mod:`.intersection`), rounded outwards.

    One of which a number is NaN meets nothing.
    """
    return in_pieces(_bounds, frame)


def _bounds(frame: Tensor) -> Tensor:
    center, half, cos, sin = frame[:2], frame[2:4], frame[4].abs(), frame[5].abs()
    reach = torch.stack([half[0] * cos + half[1] * sin, half[0] * sin + half[1] * cos])
    reach += (center.abs() + reach) * 2.0**-22
    low, high = (center - reach).float(), (center + reach).float()
    return torch.cat(
        [
            low.nan_to_num_(torch.inf, torch.inf, -torch.inf),
            high.nan_to_num_(-torch.inf, torch.inf, -torch.inf),
        ]
    )


def meeting(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Index pairs (of a [4, N], of b [4, M]) of bounds that overlap, piece by piece; every pair comes once,
    in no order.
    """
    if a.shape[1] < b.shape[1]:
        for columns, rows in meeting(b, a):
            yield rows, columns
    elif a.shape[1] * b.shape[1] <= _DIRECT:
        if b.shape[1]:
            yield _overlap(a.unsqueeze(2), b.unsqueeze(1))
    else:
        yield from _meeting_by_tiles(a, b)


def _meeting_by_tiles(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    nothing = a.new_tensor(_NOTHING)[:, None]
    order = _by_place(a)
    order = torch.cat([order, order.new_full((-len(order) % _TILE,), len(order))])
    members = pick(torch.cat([a, nothing], 1), order).view(4, -1, _TILE)
    tiles = torch.cat([members[:2].amin(2), members[2:].amax(2)])
    steps = tiles.split(at_once(a.device, b.shape[1]), 1)
    hits = [_overlap(step.unsqueeze(2), b.unsqueeze(1)) for step in steps]
    tile = torch.cat([tile + number * steps[0].shape[1] for number, (tile, _) in enumerate(hits)])
    column = torch.cat([column for _, column in hits])
    size = at_once(a.device, _TILE)
    for some, others in zip(tile.split(size), column.split(size), strict=True):
        left = [part.index_select(0, some) for part in members]  # [hits, _TILE] each
        which, member = _overlap(left, [part.index_select(0, others).unsqueeze(1) for part in b])
        yield (
            order.index_select(0, some.index_select(0, which) * _TILE + member),
            others.index_select(0, which),
        )


def _overlap(a: Tensor | Sequence[Tensor], b: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Indices where bounds overlap; both have four parts (x1, y1, x2, y2), and the parts of a and b broadcast
    to two dimensions.
    """
    hit = (a[0] < b[2]).logical_and_(a[2] > b[0]).logical_and_(a[1] < b[3]).logical_and_(a[3] > b[1])
    first, second = torch.nonzero(hit, as_tuple=True)
    return first, second


def _by_place(outer: Tensor) -> Tensor:
    """Order [N] of bounds [4, N] in which neighbours are of about equal size and lie close to each other.

    The key is, from the highest bits down: the power of two of the size, and the column and the row of cells
    of half that size. Coordinates wrap around after 2^24 cells, which costs speed there and nothing else.
    """
    return torch.argsort(in_pieces(_place, outer))


def _place(outer: Tensor) -> Tensor:
    power = torch.frexp((outer[2:] - outer[:2]).amax(0)).exponent  # the size is in [2^(power - 1), 2^power)
    column, row = torch.ldexp(outer[:2] + outer[2:], -power).nan_to_num(0, 0, 0).remainder(1 << 24).long()
    return ((power & 255).long() << 48) | (column << 24) | row
