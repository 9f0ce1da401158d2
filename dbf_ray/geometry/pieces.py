"""Long rows of numbers, worked on piece by piece.

On a CPU a piece should stay in the caches, and in one thread (torch uses several from 32,768 numbers on):
steps of some microseconds gain little from a second thread, and where other processes want the cores too,
every such step waits until it gets one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_NUMBERS = 30_000  # at once on a CPU


def at_once(device: torch.device, width: int) -> int:
    """How many items of ``width`` numbers to work on at once: few on a CPU, many on a GPU."""
    return max(1, (_NUMBERS if device.type == "cpu" else 1 << 24) // width)


def in_pieces(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """``function(rows)`` for one that makes each column [..., N] of its result from the same column of
    ``rows`` [R, N].
    """
    size = at_once(rows.device, len(rows))
    return (
        function(rows)
        if rows.shape[1] <= size
        else torch.cat([function(piece) for piece in rows.split(size, 1)], -1)
    )


def pick(rows: Tensor, index: Tensor) -> Tensor:
    """Columns [R, P] of ``rows`` [R, N] at ``index`` [P]; several times as fast on a CPU as
    ``rows[:, index]``.
    """
    return rows.gather(1, index.expand(len(rows), -1))
