"""Policy ``gradual_freeze(t0, p)``: stages freeze from the stem up, at the times of FreezeOut (arXiv
1706.04983).

FreezeOut's timing only: there each layer's learning rate is annealed by a cosine to 0 at its own time (and
scaled, so that all layers move as far); here every stage keeps the run's learning rate until it freezes.
FreezeOut's linear and cubic schedules are p = 1 and p = 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_number

TOLERANCE = 1e-9  # an epoch that is a stage's time to the last digit is not later than it


@dataclass(frozen=True)
class GradualFreeze(Policy):
    """n(e) = number of stages k = 1..K with e / E > (t0 + (1 - t0) (k - 1) / K) ** p. What is frozen stays
    so.

    Args:
        t0: share of the training, before the power p, after which the first stage freezes, 0..1; 1 never
            freezes.
        p: power of the times, > 0; the larger, the earlier.

    Raises:
        ConfigError: a parameter is out of range.
    """

    name: ClassVar[str] = "gradual_freeze"

    t0: float
    p: float = 1.0

    def __post_init__(self) -> None:
        require_number("t0", self.t0, low=0, high=1, owner="policy gradual_freeze")
        require_number("p", self.p, low=0, above=True, owner="policy gradual_freeze")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Freeze every stage whose time has come."""
        now, stages = progress.epoch / progress.epochs, progress.num_stages
        times = [(self.t0 + (1 - self.t0) * (k - 1) / stages) ** self.p for k in range(1, stages + 1)]
        return Decision(sum(now > time + TOLERANCE for time in times)), state
