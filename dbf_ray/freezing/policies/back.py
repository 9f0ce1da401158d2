"""Policy ``back(budget)``: all unfrozen epochs at the end, as in linear probing then fine-tuning (LP-FT,
arXiv 2202.10054).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_int


@dataclass(frozen=True)
class Back(Policy):
    """n(e) = 0 iff e >= E - budget, else K.

    Args:
        budget: unfrozen epochs, >= 0; E or more is full fine-tuning.

    Raises:
        ConfigError: the budget is negative.
    """

    name: ClassVar[str] = "back"

    budget: int

    def __post_init__(self) -> None:
        require_int("budget", self.budget, low=0, owner="policy back")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Train the backbone in the last epochs."""
        return Decision(0 if progress.epoch >= progress.epochs - self.budget else progress.num_stages), state
