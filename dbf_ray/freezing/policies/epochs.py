"""Policy ``epochs(epochs=[...])``: the backbone is trained in listed epochs, the other rule of DBF's official
code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_int


@dataclass(frozen=True)
class Epochs(Policy):
    """n(e) = 0 iff e is in the list, else K.

    Args:
        epochs: 0-based epochs whose backbone is trained, increasing; those beyond the run's end have no
            effect.

    Raises:
        ConfigError: the list is none, or its values are not increasing integers >= 0.
    """

    name: ClassVar[str] = "epochs"

    epochs: Sequence[int]

    def __post_init__(self) -> None:
        if not isinstance(self.epochs, list | tuple):
            raise ConfigError(
                f"policy epochs: epochs must be a list of epochs, written [0, 5, 10], got {self.epochs!r}"
            )
        for epoch in self.epochs:
            require_int("each of epochs", epoch, low=0, owner="policy epochs")
        if sorted(set(self.epochs)) != list(self.epochs):
            raise ConfigError(
                f"policy epochs: epochs must increase, each named once, got {list(self.epochs)}"
            )
        object.__setattr__(self, "epochs", list(self.epochs))

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Train the backbone in the listed epochs."""
        return Decision(0 if progress.epoch in self.epochs else progress.num_stages), state
