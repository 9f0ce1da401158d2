"""Which boxes can overlap at all: pairs of boxes whose circumscribed upright boxes meet.

Nearly all pairs of anchors and objects do not. The boxes of one side are sorted by size and place and put into tiles of a few neighbours;
tiles are compared first, and only the members of tiles that a box meets are compared one by one. Bounds are float32, rounded outwards: a
pair may be named that does not touch, but none that touches is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

_TILE = 32  # boxes in a tile
_NUMBERS = 30_000  # at once on a CPU: see `at_once`
_DIRECT = 1 << 14  # fewer pairs than this are compared without tiles


def at_once(device: torch.device, width: int) -> int:
    """How many items of ``width`` numbers to work on at once: many on a GPU, few on a CPU.

    On a CPU they should stay in its caches, and in one thread (torch uses several from 32,768 numbers on): small steps gain little from a second
    thread, and where other processes want the cores too, every step waits until it gets one.
    """
    return max(1, (_NUMBERS if device.type == "cpu" else 1 << 24) // width)


def pick(rows: Tensor, index: Tensor) -> Tensor:
    """Columns [R, P] of ``rows`` [R, N] at ``index`` [P]; several times as fast on a CPU as ``rows[:, index]``."""
    return rows.gather(1, index.expand(len(rows), -1))


def bounds(frame: Tensor) -> Tensor:
    """Circumscribed upright boxes (x1, y1, x2, y2) as float32 rows [4, N] of frames [6, N] (see :mod:`.intersection`), rounded outwards."""
    center, half, cos, sin = frame[:2], frame[2:4], frame[4].abs(), frame[5].abs()
    reach = torch.stack([half[0] * cos + half[1] * sin, half[0] * sin + half[1] * cos])
    reach += (center.abs() + reach) * 2.0**-22
    return torch.cat([center - reach, center + reach]).float()


def meeting(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Index pairs (of a [4, N], of b [4, M]) of bounds that overlap, piece by piece; every pair comes once, in no order."""
    if a.shape[1] < b.shape[1]:
        for columns, rows in meeting(b, a):
            yield rows, columns
    elif a.shape[1] * b.shape[1] <= _DIRECT:
        if b.shape[1]:
            yield _overlap(a.unsqueeze(2), b.unsqueeze(1))
    else:
        yield from _meeting_by_tiles(a, b)


def _meeting_by_tiles(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    order = _by_place(a)
    missing = -len(order) % _TILE
    members = pad(pick(a, order), (0, missing), value=torch.nan).view(4, -1, _TILE)  # NaN meets nothing
    order = pad(order, (0, missing))
    low, high = members[:2].nan_to_num(torch.inf, torch.inf, -torch.inf), members[2:].nan_to_num(-torch.inf, torch.inf, -torch.inf)
    tiles = torch.cat([low.amin(2), high.amax(2)])
    steps = tiles.split(at_once(a.device, b.shape[1]), 1)
    hits = [_overlap(step.unsqueeze(2), b.unsqueeze(1)) for step in steps]
    tile = torch.cat([tile + number * steps[0].shape[1] for number, (tile, _) in enumerate(hits)])
    column = torch.cat([column for _, column in hits])
    size = at_once(a.device, _TILE)
    for some, others in zip(tile.split(size), column.split(size), strict=True):
        left = [part.index_select(0, some) for part in members]  # [hits, _TILE] each
        which, member = _overlap(left, [part.index_select(0, others).unsqueeze(1) for part in b])
        yield order.index_select(0, some.index_select(0, which) * _TILE + member), others.index_select(0, which)


def _overlap(a: Tensor | Sequence[Tensor], b: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Indices where bounds overlap; both have four parts (x1, y1, x2, y2), and the parts of a and b broadcast to two dimensions."""
    hit = (a[0] < b[2]).logical_and_(a[2] > b[0]).logical_and_(a[1] < b[3]).logical_and_(a[3] > b[1])
    first, second = torch.nonzero(hit, as_tuple=True)
    return first, second


def _by_place(outer: Tensor) -> Tensor:
    """Order [N] of bounds [4, N] in which neighbours are of about equal size and lie close to each other.

    The key is, from the highest bits down: the power of two of the size, and the column and the row of cells of half that size. Coordinates
    wrap around after 2^24 cells, which costs speed there and nothing else.
    """
    power = torch.frexp((outer[2:] - outer[:2]).amax(0)).exponent  # the size is in [2^(power - 1), 2^power)
    cells = torch.floor(torch.ldexp(outer[:2] + outer[2:], -power)).nan_to_num(0, 0, 0)
    column, row = cells.remainder(1 << 24).long()
    return torch.argsort(((power & 255).long() << 48) | (column << 24) | row)
