"""What a freezing policy is: a pure function from time, signals and state to a decision.

Pure Python on purpose: a timeline can be computed, shown and tested without torch. A policy counts nothing
itself. Time comes in as ``t``, whatever it must remember goes in and out as ``state``, a plain JSON-able dict
that checkpoints carry.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies.checked import Checked

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


class Horizon(Checked):
    """What is known of a run before it starts: ``Horizon(epochs, num_stages, seed, costs=...)``.

    Args:
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

    epochs: PositiveInt
    num_stages: PositiveInt
    seed: int = 0
    costs: tuple[int | float, ...] | None = None
    block_steps: PositiveInt = 1
    total_steps: int | None = None
    always_frozen: NonNegativeInt = 0

    def __init__(self, epochs: int, num_stages: int, seed: int = 0, **others: Any) -> None:
        super().__init__(epochs=epochs, num_stages=num_stages, seed=seed, **others)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.always_frozen > self.num_stages:
            raise ValueError(
                f"always_frozen must be an integer in 0..{self.num_stages}, got {self.always_frozen}"
            )
        low, high = self.block_steps * (self.epochs - 1) + 1, self.block_steps * self.epochs
        if self.total_steps is not None and not low <= self.total_steps <= high:
            raise ValueError(f"total_steps must be an integer in {low}..{high}, got {self.total_steps}")
        wanted = self.num_stages + 1
        if self.costs is not None and (len(self.costs) != wanted or not all(cost > 0 for cost in self.costs)):
            raise ValueError(f"costs must be {wanted} numbers > 0, one for each prefix, got {self.costs!r}")
        return self

    @property
    def all_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.block_steps if self.total_steps is None else self.total_steps

    def steps(self, t: int) -> int:
        """Optimizer steps of an epoch (or block)."""
        return min(self.block_steps, self.all_steps - self.check(t) * self.block_steps)

    def check(self, t: int) -> int:
        """``t`` itself, if it is an epoch (or block) of the run.

        Raises:
            ConfigError: it is not in 0..E-1.
        """
        require_int("t", t, low=0, high=self.epochs - 1, owner="horizon")
        return t


class Policy(Checked):
    """Base of all policies: :class:`Schedule` for those that need no memory and no signals, this one for the
    others. A member's fields are its parameters, typed as pydantic checks them: ``rho: PositiveInt``.

    Attributes:
        name: what it is called in configurations and records; of a policy that was found by a dotted path,
            that path.
        needs_signals: names of the signals that :meth:`decide` reads, of
            :data:`dbf_ray.training.signals.SIGNALS`; empty for a policy that is known before training.
        needs_costs: it reads ``horizon.costs``.
    """

    name: ClassVar[str]
    needs_signals: ClassVar[tuple[str, ...]] = ()
    needs_costs: ClassVar[bool] = False

    @classmethod
    def _owner(cls) -> str:
        return f"policy {getattr(cls, 'name', cls.__name__)}"

    @abstractmethod
    def decide(self, t: int, horizon: Horizon, signals: Signals, state: State) -> tuple[Decision, State]:
        """Decide what epoch (or block) ``t`` trains.

        Args:
            t: 0-based, 0 <= t < E.
            horizon: what is constant in the run.
            signals: the values named by ``needs_signals`` as the epoch before gave them, the same on all
                ranks; None where it gave none, and all None before the first epoch. Empty for other policies.
            state: what the last call returned; ``{}`` at the first call. Never changed in place.

        Returns:
            The decision, and the state for the next call.
        """

    def check(self, horizon: Horizon) -> None:
        """Refuse a run that the policy cannot serve, before it starts.

        Raises:
            ConfigError: a parameter does not fit the number of epochs, the stages or the costs.
        """

    def timeline(self, horizon: Horizon) -> list[Decision]:
        """Every decision of a run, before anything is trained.

        Raises:
            ConfigError: the policy needs signals of a real training, or :meth:`check` refuses the run.
        """
        if self.needs_signals:
            raise ConfigError(
                f"policy {self.name} decides by {', '.join(self.needs_signals)} measured while training, so "
                "its timeline cannot be known before; train it, or choose a policy that needs no signals"
            )
        return self.replay(horizon, horizon.epochs)[0]

    def replay(self, horizon: Horizon, blocks: int) -> tuple[list[Decision], State]:
        """The decisions of the first ``blocks`` epochs (or blocks) of a policy that needs no signals, and its
        state after them.

        Raises:
            ConfigError: :meth:`check` refuses the run.
        """
        self.check(horizon)
        state: State = {}
        decided = []
        for t in range(blocks):
            decision, state = self.decide(t, horizon, {}, state)
            decided.append(decision)
        return decided, state

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
        horizon = Horizon(epochs, num_stages, seed, costs=None if costs is None else tuple(costs))
        return [decision.num_frozen for decision in self.timeline(horizon)]

    def parameters(self) -> dict[str, Any]:
        """The policy's parameters by name, JSON-able; ``make_policy(policy.name, **policy.parameters())``
        makes an equal one.
        """
        return self.model_dump(mode="json")


class Schedule(Policy):
    """A policy whose decision follows from time and the horizon alone: a member writes :meth:`num_frozen`."""

    @abstractmethod
    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """How many leading stages epoch (or block) ``t`` freezes, 0..K."""

    def lr_factors(self, t: int, horizon: Horizon) -> tuple[float, ...] | None:
        """Learning-rate factor of each stage in epoch (or block) ``t``; None for 1 everywhere."""
        return None

    def decide(self, t: int, horizon: Horizon, signals: Signals, state: State) -> tuple[Decision, State]:
        """What the two functions say; the state stays what it is."""
        return Decision(self.num_frozen(horizon.check(t), horizon), self.lr_factors(t, horizon)), state


def require_int(key: str, value: Any, *, low: int, high: int | None = None, owner: str) -> None:
    """Refuse a value that is no integer in ``low..high`` (``high`` None: no upper bound).

    Raises:
        ConfigError: naming owner, key, rule and value.
    """
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= low
    if not fits or (high is not None and value > high):
        rule = f">= {low}" if high is None else f"in {low}..{high}"
        raise ConfigError(f"{owner}: {key} must be an integer {rule}, got {value!r}")
