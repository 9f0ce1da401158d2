"""Policy ``random_budget(budget)``: as many unfrozen epochs as ``step``, at random places. Does the
*placement* matter?
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_int
from dbf_ray.freezing.policies.chance import uniform


@dataclass(frozen=True)
class RandomBudget(Policy):
    """n(e) = 0 in exactly ``budget`` epochs drawn without replacement by the seed, else K.

    The epochs with the ``budget`` smallest of E random numbers are drawn, so that all sets are equally
    likely.

    Args:
        budget: unfrozen epochs, 0..E.

    Raises:
        ConfigError: the budget is negative; or, once E is known, above it.
    """

    name: ClassVar[str] = "random_budget"

    budget: int

    def __post_init__(self) -> None:
        require_int("budget", self.budget, low=0, owner="policy random_budget")

    def check(self, run: Progress) -> None:
        """Refuse to draw more epochs than there are."""
        if self.budget > run.epochs:
            raise ConfigError(
                f"policy random_budget: budget must be at most the number of epochs (or blocks) to draw "
                f"from, {run.epochs}, got {self.budget}"
            )

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Train the backbone if this epoch was drawn."""
        self.check(progress)
        drawn = _draw(self.budget, progress.epochs, progress.seed)
        return Decision(0 if progress.epoch in drawn else progress.num_stages), state


@functools.lru_cache(maxsize=8)
def _draw(budget: int, epochs: int, seed: int) -> frozenset[int]:
    return frozenset(
        sorted(range(epochs), key=lambda epoch: (uniform(RandomBudget.name, seed, epoch), epoch))[:budget]
    )
