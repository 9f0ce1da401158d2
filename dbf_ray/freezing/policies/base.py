"""What a freezing policy is: a pure function from progress, signals and state to a decision.

Pure Python on purpose: a timeline can be computed, shown and tested without torch. A policy counts nothing itself. Time comes in
with :class:`Progress`, whatever it must remember goes in and out as ``state``, a plain JSON-able dict that checkpoints carry.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dbf_ray.errors import ConfigError

State = dict[str, Any]
Signals = Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """What one epoch (or block of steps) trains.

    Args:
        frozen_stages: number n of leading backbone stages that are frozen, 0 (all trained) to K (whole backbone frozen).
        lr_factors: learning-rate factor of each of the K stages, or None for 1 everywhere.
    """

    frozen_stages: int
    lr_factors: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Progress:
    """Where a run stands when it asks a policy.

    Args:
        epoch: 0-based epoch (or block) that is about to start, 0 <= epoch < epochs.
        epochs: epochs (or blocks) of the whole run, E >= 1.
        num_stages: stages of the backbone, K >= 1, in forward order; the stem belongs to the first.
        seed: the run's seed; the only source of chance.

    Raises:
        ConfigError: a value is out of range.
    """

    epoch: int
    epochs: int
    num_stages: int
    seed: int = 0

    def __post_init__(self) -> None:
        require_int("epochs", self.epochs, low=1, owner="progress")
        require_int("num_stages", self.num_stages, low=1, owner="progress")
        require_int("epoch", self.epoch, low=0, high=self.epochs - 1, owner="progress")


class Policy(ABC):
    """Base of all policies. A member is a frozen dataclass whose fields are its parameters, checked in ``__post_init__``."""

    name: ClassVar[str]
    #: names of the signals that :meth:`decide` reads (gradient norms, ...); empty for policies known before training.
    needs_signals: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Decide what the epoch ``progress.epoch`` trains.

        Args:
            progress: where the run stands.
            signals: the values named by ``needs_signals``, reduced over ranks; empty for other policies.
            state: what the last call returned; ``{}`` at the first call. Never changed in place.

        Returns:
            The decision, and the state for the next call.
        """

    def decisions(self, epochs: int, num_stages: int, seed: int = 0) -> list[int]:
        """The whole timeline: the frozen prefix n of each epoch, before anything is trained.

        Raises:
            ConfigError: the policy needs signals of a real training, or epochs or num_stages is not >= 1.
        """
        if self.needs_signals:
            raise ConfigError(
                f"policy {self.name} decides by {', '.join(self.needs_signals)} measured while training, "
                "so its timeline cannot be known before; train it, or choose a policy that needs no signals"
            )
        Progress(0, epochs, num_stages, seed)
        state: State = {}
        timeline = []
        for epoch in range(epochs):
            decision, state = self.decide(Progress(epoch, epochs, num_stages, seed), {}, state)
            timeline.append(decision.frozen_stages)
        return timeline

    def parameters(self) -> dict[str, Any]:
        """The policy's parameters by name, JSON-able; ``make_policy(policy.name, **policy.parameters())`` makes an equal one."""
        if not dataclasses.is_dataclass(self):
            return {}
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def require_int(key: str, value: Any, *, low: int, high: int | None = None, owner: str) -> None:
    """Refuse a value that is no integer in ``low..high`` (``high`` None: no upper bound).

    Raises:
        ConfigError: naming owner, key, rule and value.
    """
    rule = f">= {low}" if high is None else f"in {low}..{high}"
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        raise ConfigError(f"{owner}: {key} must be an integer {rule}, got {value!r}")
