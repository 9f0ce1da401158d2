"""Policies ``gradual_unfreeze(every)`` and ``gradual_freeze(t0, p)``: stages thaw one after the other from
the head down, or freeze from the stem up.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from dbf_ray.freezing.policies.base import Horizon, Schedule

TOLERANCE = 1e-9  # an epoch that is a stage's time to the last digit is not later than it


class GradualUnfreeze(Schedule):
    """n(t) = max(0, K - 1 - floor(t / every)): the last stage is trained from the beginning, one more after
    each ``every`` epochs (ULMFiT, arXiv 1801.06146, section 3.3). With K = 1 it equals full fine-tuning.

    Args:
        every: epochs from one thaw to the next, >= 1.
    """

    name = "gradual_unfreeze"

    every: PositiveInt

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Freeze ever fewer stages."""
        return max(0, horizon.num_stages - 1 - t // self.every)


class GradualFreeze(Schedule):
    """n(t) = number of stages k = 1..K with t / E > (t0 + (1 - t0) (k - 1) / K) ** p. What is frozen stays
    so.

    FreezeOut's timing only (arXiv 1706.04983; its linear and cubic schedules are p = 1 and p = 3): there each
    layer's learning rate is annealed by a cosine to 0 at its own time (and scaled, so that all layers move as
    far); here every stage keeps the run's learning rate until it freezes.

    Args:
        t0: share of the training, before the power p, after which the first stage freezes, 0..1; 1 never
            freezes.
        p: power of the times, > 0; the larger, the earlier.
    """

    name = "gradual_freeze"

    t0: Annotated[float, Field(ge=0, le=1)]
    p: PositiveFloat = 1.0

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Freeze every stage whose time has come."""
        now, stages = t / horizon.epochs, horizon.num_stages
        times = [(self.t0 + (1 - self.t0) * (k - 1) / stages) ** self.p for k in range(1, stages + 1)]
        return sum(now > time + TOLERANCE for time in times)
