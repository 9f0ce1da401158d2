"""Policy ``bernoulli(p)``: a coin for every epoch. A schedule without any structure, as a control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_number
from dbf_ray.freezing.policies.chance import uniform


@dataclass(frozen=True)
class Bernoulli(Policy):
    """n(e) = 0 with chance p, drawn for each epoch by (seed, e), else K.

    Args:
        p: chance that an epoch's backbone is trained, 0..1.

    Raises:
        ConfigError: p is out of range.
    """

    name: ClassVar[str] = "bernoulli"

    p: float

    def __post_init__(self) -> None:
        require_number("p", self.p, low=0, high=1, owner="policy bernoulli")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Toss the epoch's coin."""
        trained = uniform(self.name, progress.seed, progress.epoch) < self.p
        return Decision(0 if trained else progress.num_stages), state
