"""Policy ``front(budget)``: all unfrozen epochs at the beginning, as when a backbone is frozen once it has
adapted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_int


@dataclass(frozen=True)
class Front(Policy):
    """n(e) = 0 iff e < budget, else K.

    Args:
        budget: unfrozen epochs, >= 0; E or more is full fine-tuning.

    Raises:
        ConfigError: the budget is negative.
    """

    name: ClassVar[str] = "front"

    budget: int

    def __post_init__(self) -> None:
        require_int("budget", self.budget, low=0, owner="policy front")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Train the backbone in the first epochs."""
        return Decision(0 if progress.epoch < self.budget else progress.num_stages), state
