"""Policy ``lr_scale(factor)``: never frozen, but slower. Does freezing do anything that a smaller learning
rate does not?

The control for every freezing policy: it saves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_number


@dataclass(frozen=True)
class LrScale(Policy):
    """n(e) = 0; the learning rate of every backbone stage times ``factor``.

    Args:
        factor: > 0; 1 is full fine-tuning.

    Raises:
        ConfigError: the factor is out of range.
    """

    name: ClassVar[str] = "lr_scale"

    factor: float

    def __post_init__(self) -> None:
        require_number("factor", self.factor, low=0, above=True, owner="policy lr_scale")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Train everything, the backbone slowly."""
        return Decision(0, (float(self.factor),) * progress.num_stages), state
