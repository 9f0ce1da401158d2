"""Policy ``cosine(start, end)``: unfrozen epochs get rarer (or denser) along half a cosine, evenly spread at
every moment.
"""

from __future__ import annotations

import functools
import math
from typing import Annotated

from pydantic import Field

from dbf_ray.freezing.policies.base import Horizon, Schedule

TOLERANCE = 1e-9  # densities such as 1/3 must not lose an epoch by rounding


class Cosine(Schedule):
    """Density d(t) = end + (start - end) (1 + cos(pi t / (E - 1))) / 2, and d = start if E = 1.

    A sum starts at 0.5 and grows by d(t) each epoch; when it reaches 1 the epoch is unfrozen (n = 0) and the
    sum falls by 1; else n = K.

    Args:
        start: share of unfrozen epochs at the beginning, 0..1.
        end: share at the end, 0..1.
    """

    name = "cosine"

    start: Annotated[float, Field(ge=0, le=1)]
    end: Annotated[float, Field(ge=0, le=1)]

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Train the backbone when a whole epoch has come together."""
        return 0 if t in _due(self.start, self.end, horizon.epochs) else horizon.num_stages


@functools.lru_cache(maxsize=8)
def _due(start: float, end: float, epochs: int) -> frozenset[int]:
    """The epochs in which the sum reaches 1."""
    due, total = set(), 0.5
    for t in range(epochs):
        if epochs == 1:
            total += start
        else:
            total += end + (start - end) * (1 + math.cos(math.pi * t / (epochs - 1))) / 2
        if total >= 1 - TOLERANCE:
            due.add(t)
            total -= 1
    return frozenset(due)
