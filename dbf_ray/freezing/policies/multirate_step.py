"""Policy ``multirate_step(rho, growth)``: every stage has its own period, early stages a longer one
(multirate training, arXiv 2106.10771, partitions a network into parts that are stepped at different rates).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import (
    Decision,
    Policy,
    Progress,
    Signals,
    State,
    require_int,
    require_number,
)


@dataclass(frozen=True)
class MultirateStep(Policy):
    """Stage k = 1..K is due when e mod floor(rho * growth ** (K - k) + 0.5) = 0; n(e) = number of stages
    before the first due one, or K.

    A prefix can only be frozen whole: when an early stage is due, all later ones are trained with it.

    Args:
        rho: period of the last stage in epochs, 1..10**6.
        growth: factor of the period from each stage to the one before, 1..1000; 1 is step(rho).

    Raises:
        ConfigError: a parameter is out of range.
    """

    name: ClassVar[str] = "multirate_step"

    rho: int
    growth: float = 2.0

    def __post_init__(self) -> None:
        require_int("rho", self.rho, low=1, high=10**6, owner="policy multirate_step")
        require_number("growth", self.growth, low=1, high=1000, owner="policy multirate_step")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Train from the first due stage on."""
        stages = progress.num_stages
        due = (
            k
            for k in range(1, stages + 1)
            if progress.epoch % math.floor(self.rho * self.growth ** (stages - k) + 0.5) == 0
        )
        return Decision(next(due, stages + 1) - 1), state
