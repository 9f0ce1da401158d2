"""Policy ``multirate_step(rho, growth)``: every stage has its own period, early stages a longer one
(multirate training, arXiv 2106.10771, partitions a network into parts that are stepped at different rates).
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from dbf_ray.freezing.policies.base import Horizon, Schedule


class MultirateStep(Schedule):
    """Stage k = 1..K is due when t mod floor(rho * growth ** (K - k) + 0.5) = 0; n(t) = number of stages
    before the first due one, or K.

    A prefix can only be frozen whole: when an early stage is due, all later ones are trained with it.

    Args:
        rho: period of the last stage in epochs, 1..10**6.
        growth: factor of the period from each stage to the one before, 1..1000; 1 is step(rho).
    """

    name = "multirate_step"

    rho: Annotated[int, Field(ge=1, le=10**6)]
    growth: Annotated[float, Field(ge=1, le=1000)] = 2.0

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Train from the first due stage on."""
        stages = horizon.num_stages
        due = (
            stage
            for stage in range(stages)
            if t % math.floor(self.rho * self.growth ** (stages - 1 - stage) + 0.5) == 0
        )
        return next(due, stages)
