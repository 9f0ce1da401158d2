"""What a freezing policy is: a pure function from progress, signals and state to a decision.

Pure Python on purpose: a timeline can be computed, shown and tested without torch. A policy counts nothing
itself. Time comes in with :class:`Progress`, whatever it must remember goes in and out as ``state``, a plain
JSON-able dict that checkpoints carry.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dbf_ray.errors import ConfigError

State = dict[str, Any]
Signals = Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """What one epoch (or block of steps) trains.

    Args:
        num_frozen: number n of leading backbone stages that are frozen, 0 (all trained) to K (whole backbone
            frozen).
        lr_factors: learning-rate factor of each of the K stages, or None for 1 everywhere.
    """

    num_frozen: int
    lr_factors: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Progress:
    """Where a run stands when it asks a policy.

    Args:
        epoch: 0-based epoch (or block) that is about to start, 0 <= epoch < epochs.
        epochs: epochs (or blocks) of the whole run, E >= 1.
        num_stages: stages of the backbone, K >= 1, in forward order; the stem belongs to the first.
        seed: the run's seed; the only source of chance.
        costs: what an optimizer step costs with the first 0..K stages frozen, K + 1 numbers > 0 in any one
            unit, always frozen stages included; None where nobody has counted.
        block_steps: optimizer steps of every epoch (or block) but the last.
        total_steps: optimizer steps of the whole run, so that the last block may be short; None: all are
            alike.
        always_frozen: leading stages that are frozen whatever a policy decides.

    Raises:
        ConfigError: a value is out of range.
    """

    epoch: int
    epochs: int
    num_stages: int
    seed: int = 0
    costs: tuple[float, ...] | None = None
    block_steps: int = 1
    total_steps: int | None = None
    always_frozen: int = 0

    def __post_init__(self) -> None:
        require_int("epochs", self.epochs, low=1, owner="progress")
        require_int("num_stages", self.num_stages, low=1, owner="progress")
        require_int("epoch", self.epoch, low=0, high=self.epochs - 1, owner="progress")
        require_int("block_steps", self.block_steps, low=1, owner="progress")
        require_int("always_frozen", self.always_frozen, low=0, high=self.num_stages, owner="progress")
        if self.total_steps is not None:
            low, high = self.block_steps * (self.epochs - 1) + 1, self.block_steps * self.epochs
            require_int("total_steps", self.total_steps, low=low, high=high, owner="progress")
        if self.costs is not None and (
            len(self.costs) != self.num_stages + 1 or not all(cost > 0 for cost in self.costs)
        ):
            raise ConfigError(
                f"progress: costs must be {self.num_stages + 1} numbers > 0, one for each prefix, got "
                f"{self.costs!r}"
            )

    @property
    def all_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.block_steps if self.total_steps is None else self.total_steps

    def steps(self, epoch: int) -> int:
        """Optimizer steps of an epoch (or block)."""
        return min(self.block_steps, self.all_steps - epoch * self.block_steps)


class Policy(ABC):
    """Base of all policies. A member is a frozen dataclass whose fields are its parameters, checked in
    ``__post_init__``.
    """

    name: ClassVar[str]

    @property
    def needs_signals(self) -> tuple[str, ...]:
        """Names of the signals that :meth:`decide` reads, of :data:`SIGNALS`; empty for a policy that is
        known before training.
        """
        return ()

    @abstractmethod
    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Decide what the epoch ``progress.epoch`` trains.

        Args:
            progress: where the run stands.
            signals: the values named by ``needs_signals`` as the epoch before gave them, the same on all
                ranks; None where it gave none, and all None before the first epoch. Empty for other policies.
            state: what the last call returned; ``{}`` at the first call. Never changed in place.

        Returns:
            The decision, and the state for the next call.
        """

    def check(self, run: Progress) -> None:
        """Refuse a run that the policy cannot serve, before it starts; ``run`` is its progress at epoch 0.

        Raises:
            ConfigError: a parameter does not fit the number of epochs, the stages or the costs.
        """

    def timeline(self, run: Progress) -> list[Decision]:
        """Every decision of a run, before anything is trained; ``run`` is its progress at epoch 0.

        Raises:
            ConfigError: the policy needs signals of a real training, or :meth:`check` refuses the run.
        """
        if self.needs_signals:
            raise ConfigError(
                f"policy {self.name} decides by {', '.join(self.needs_signals)} measured while training, "
                "so its timeline cannot be known before; train it, or choose a policy that needs no signals"
            )
        self.check(run)
        state: State = {}
        decided = []
        for epoch in range(run.epochs):
            decision, state = self.decide(dataclasses.replace(run, epoch=epoch), {}, state)
            decided.append(decision)
        return decided

    def decisions(
        self, epochs: int, num_stages: int, seed: int = 0, *, costs: Sequence[float] | None = None
    ) -> list[int]:
        """The whole timeline: the frozen prefix n of each epoch, before anything is trained.

        Args:
            epochs: E.
            num_stages: K.
            seed: the run's seed.
            costs: what a step costs with the first 0..K stages frozen; needed by policies that count costs.

        Raises:
            ConfigError: as :meth:`timeline`, or epochs or num_stages is not >= 1.
        """
        run = Progress(0, epochs, num_stages, seed, None if costs is None else tuple(costs))
        return [decision.num_frozen for decision in self.timeline(run)]

    def parameters(self) -> dict[str, Any]:
        """The policy's parameters by name, JSON-able; ``make_policy(policy.name, **policy.parameters())``
        makes an equal one.
        """
        if not dataclasses.is_dataclass(self):
            return {}
        return {field.name: copy.deepcopy(getattr(self, field.name)) for field in dataclasses.fields(self)}


def require_int(key: str, value: Any, *, low: int, high: int | None = None, owner: str) -> None:
    """Refuse a value that is no integer in ``low..high`` (``high`` None: no upper bound).

    Raises:
        ConfigError: naming owner, key, rule and value.
    """
    rule = f">= {low}" if high is None else f"in {low}..{high}"
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < low
        or (high is not None and value > high)
    ):
        raise ConfigError(f"{owner}: {key} must be an integer {rule}, got {value!r}")


def require_number(
    key: str,
    value: Any,
    *,
    low: float,
    high: float = math.inf,
    above: bool = False,
    below: bool = False,
    owner: str,
) -> None:
    """Refuse a value that is no finite number in [low, high]; ``above`` and ``below`` leave the ends out.

    Raises:
        ConfigError: naming owner, key, rule and value.
    """
    rule = f"> {low:g}" if above else f">= {low:g}"
    if high < math.inf:
        rule += f" and < {high:g}" if below else f" and <= {high:g}"
    fits = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < math.inf
        and low <= value <= high
    )
    if not fits or (above and value == low) or (below and value == high):
        raise ConfigError(f"{owner}: {key} must be a number {rule}, got {value!r}")
