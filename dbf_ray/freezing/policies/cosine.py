"""Policy ``cosine(start, end)``: unfrozen epochs get rarer (or denser) along half a cosine, evenly spread at
every moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_number

TOLERANCE = 1e-9  # densities such as 1/3 must not lose an epoch by rounding


@dataclass(frozen=True)
class Cosine(Policy):
    """Density d(e) = end + (start - end) (1 + cos(pi e / (E - 1))) / 2, and d = start if E = 1.

    A sum starts at 0.5 and grows by d(e) each epoch; when it reaches 1 the epoch is unfrozen (n = 0) and the
    sum falls by 1; else n = K.

    Args:
        start: share of unfrozen epochs at the beginning, 0..1.
        end: share at the end, 0..1.

    Raises:
        ConfigError: a parameter is out of range.
    """

    name: ClassVar[str] = "cosine"

    start: float
    end: float

    def __post_init__(self) -> None:
        require_number("start", self.start, low=0, high=1, owner="policy cosine")
        require_number("end", self.end, low=0, high=1, owner="policy cosine")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Add the epoch's density, and train the backbone when a whole epoch has come together."""
        density = float(self.start)
        if progress.epochs > 1:
            density = (
                self.end
                + (self.start - self.end)
                * (1 + math.cos(math.pi * progress.epoch / (progress.epochs - 1)))
                / 2
            )
        total = state.get("sum", 0.5) + density
        due = total >= 1 - TOLERANCE
        return Decision(0 if due else progress.num_stages), {"sum": total - 1 if due else total}
