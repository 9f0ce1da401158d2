"""A policy's decisions in anybody's training loop: asked when an epoch begins, made true by a freezer."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch.optim import Optimizer

from dbf_ray.errors import ConfigError, TrainingError
from dbf_ray.freezing.freezer import Freezer
from dbf_ray.freezing.policies import Decision, Horizon, Policy, policy_to_dict
from dbf_ray.freezing.policies.base import require_int
from dbf_ray.freezing.stage_rates import StageRates, check_parameters


class FreezingSchedule:
    """Which stages each epoch of a training freezes.

    Call :meth:`begin_epoch` before each epoch, on every rank, and wrap the model in DDP anew where it returns
    True: DDP keeps to the parameters that were trained when it was made, and ranks drift apart in silence if
    more are trained later.

    Args:
        policy: decides; of :func:`dbf_ray.make_policy`.
        freezer: applies.
        epochs: E, of the whole training.
        seed: of policies that draw lots; the same on all ranks.
        costs: what an optimizer step costs with the first 0..K stages frozen, K + 1 numbers in any one unit;
            for policies that count costs.
        signals: names of what you will :meth:`report` in every epoch, for policies that decide by it.
        optimizer: for policies that give stages learning rates of their own. Each of its groups is of one
            stage (:meth:`Freezer.parameter_groups`); ``optimizer.step`` takes a group's rate times its
            stage's factor, whatever else sets rates. With any policy it is checked for all that will be
            trained.

    Attributes:
        epoch: the one begun last, -1 before the first.

    Raises:
        ConfigError: the policy needs what was not given, or cannot serve such a training; the optimizer lacks
            a parameter, or has one group for several stages.

    Example:
        >>> schedule = FreezingSchedule(make_policy("step", rho=4), freezer, epochs=12)
        >>> ddp = DistributedDataParallel(model)
        >>> for epoch in range(12):
        ...     if schedule.begin_epoch(epoch):
        ...         ddp = DistributedDataParallel(model)
        ...     train_one_epoch(ddp)
    """

    def __init__(
        self,
        policy: Policy,
        freezer: Freezer,
        epochs: int,
        seed: int = 0,
        costs: Sequence[float] | None = None,
        signals: Collection[str] = (),
        optimizer: Optimizer | None = None,
    ) -> None:
        self.policy, self.freezer, self.epoch = policy, freezer, -1
        counted = None if costs is None else tuple(costs)
        self._horizon = Horizon(
            epochs, freezer.num_stages, seed, costs=counted, always_frozen=freezer.always_frozen
        )
        self._decision, self._memory, self._reported = Decision(0), dict[str, Any](), dict[str, Any]()
        self._check_given(costs, signals)
        self._rates = None
        if optimizer is not None:
            check_parameters([optimizer], freezer.trainable_parameters)
            self._rates = StageRates(optimizer, freezer.stage_parameters)
        if policy.needs_signals:
            policy.check(self._horizon)
        elif any(decision.lr_factors is not None for decision in policy.timeline(self._horizon)):
            self._rates_by_stage().check_groups()

    @property
    def num_frozen(self) -> int:
        """How many leading stages are frozen now."""
        return self.freezer.num_frozen

    @property
    def lr_factors(self) -> tuple[float, ...]:
        """Each stage's factor of the learning rate in the epoch begun last."""
        return self._decision.lr_factors or (1.0,) * self.freezer.num_stages

    def begin_epoch(self, epoch: int) -> bool:
        """Freeze what ``epoch`` freezes. Where the policy decides by signals this is a collective.

        Args:
            epoch: 0-based; 0 first, then one after the other. The same one again changes nothing.

        Returns:
            Whether what is trained changed, so that DDP has to be made anew.

        Raises:
            ConfigError: the epoch is not the next one, or a signal of the one before was not reported; stages
                get rates of their own, and there is no optimizer, or it has one group for several stages.
            TrainingError: ranks reported different values, and so decide differently.
        """
        require_int("epoch", epoch, low=0, high=self._horizon.epochs - 1, owner="freezing schedule")
        if epoch != self.epoch:
            self._decide(epoch)
        if self._decision.lr_factors is not None:
            self._rates_by_stage().check_groups()
        if self._rates is not None:
            self._rates.factors = self._decision.lr_factors
        return self.freezer.apply(self._decision.num_frozen)

    def report(self, **signals: Any) -> None:
        """What was measured in the epoch begun last: numbers, or lists of one for each stage; None for what
        was not measured. The same on all ranks. What the policy does not ask for is ignored.
        """
        for name in self.policy.needs_signals:
            if name in signals:
                value = signals[name]
                self._reported[name] = value.tolist() if hasattr(value, "tolist") else value

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a checkpoint at any time."""
        decision = {"num_frozen": self._decision.num_frozen, "lr_factors": self._decision.lr_factors}
        state = {"epoch": self.epoch, **decision, "memory": self._memory, "reported": self._reported}
        return copy.deepcopy({**self._identity(), "epochs": self._horizon.epochs, **state})

    def load_state_dict(self, state: Mapping[str, Any], replay: bool = False) -> None:
        """Undo of :meth:`state_dict`. The next :meth:`begin_epoch`, of the same epoch or the next, freezes.

        Args:
            state: what :meth:`state_dict` gave.
            replay: it may be of another policy that has decided the same in each epoch so far, as where the
                trials of a search begin at each other's checkpoints. What this policy remembers is then made
                anew of its own decisions. Policies that decide by signals are resumed as without.

        Raises:
            ConfigError: the state is of another policy, seed or number of stages; or of another number of
                epochs, with which the policy would have decided otherwise so far; or, to be replayed, of a
                policy that decided otherwise in its last epoch.
        """
        if replay and not self.policy.needs_signals:
            self._replay(state)
            return
        for key, own in self._identity().items():
            if state.get(key) != own:
                raise ConfigError(
                    f"a freezing schedule must resume with the {key} it began with, {state.get(key)!r}, got "
                    f"{own!r}; give that one, or begin anew without the state"
                )
        state = copy.deepcopy(dict(state))
        self._check_past(state["epochs"], state["epoch"])
        factors = state["lr_factors"]
        self._decision = Decision(state["num_frozen"], None if factors is None else tuple(factors))
        self.epoch, self._memory, self._reported = state["epoch"], state["memory"], state["reported"]

    def _replay(self, state: Mapping[str, Any]) -> None:
        epoch = state["epoch"]
        decided, memory = self.policy.replay(self._horizon, epoch + 1)
        frozen = decided[-1].num_frozen if decided else 0
        if state["num_frozen"] != frozen or state["num_stages"] != self._horizon.num_stages:
            raise ConfigError(
                f"a state to be replayed must be of a policy that decided the same, but it froze "
                f"{state['num_frozen']} of {state['num_stages']} stages in epoch {epoch}, and policy "
                f"{self.policy.name} freezes {frozen} of {self._horizon.num_stages}; begin anew without it"
            )
        self._decision = decided[-1] if decided else Decision(0)
        self.epoch, self._memory, self._reported = epoch, memory, {}

    def _identity(self) -> dict[str, Any]:
        kept = {"seed": self._horizon.seed, "num_stages": self._horizon.num_stages}
        return {"policy": policy_to_dict(self.policy), **kept}

    def _check_past(self, epochs: int, last: int) -> None:
        """A training may become longer or shorter where that leaves its past as it was."""
        before = self._horizon.model_copy(update={"epochs": epochs})
        if epochs != self._horizon.epochs and not self.policy.needs_signals:
            then, now = (self.policy.timeline(horizon)[: last + 1] for horizon in (before, self._horizon))
            if then != now:
                raise ConfigError(
                    f"a freezing schedule must resume with the epochs it began with, {epochs}, got "
                    f"{self._horizon.epochs}: policy {self.policy.name} would have decided otherwise so far"
                )

    def _decide(self, epoch: int) -> None:
        if epoch != self.epoch + 1:
            raise ConfigError(
                f"epochs must be begun one after the other, the next is {self.epoch + 1}, got {epoch}; a run "
                "that resumes loads the state of its schedule first"
            )
        names = self.policy.needs_signals
        missing = [name for name in names if epoch and name not in self._reported]
        if missing:
            raise ConfigError(
                f"policy {self.policy.name} decides by {missing[0]} of epoch {self.epoch}, which was not "
                f"reported; call report({missing[0]}=...) before begin_epoch({epoch}), with None if it was "
                "not measured"
            )
        values = {name: self._reported[name] if epoch else None for name in names}
        decision, memory = self.policy.decide(epoch, self._horizon, values, self._memory)
        if names:
            _check_ranks(decision)
        self.epoch, self._decision, self._memory, self._reported = epoch, decision, memory, {}

    def _check_given(self, costs: Sequence[float] | None, signals: Collection[str]) -> None:
        policy = self.policy
        if policy.needs_costs and costs is None:
            raise ConfigError(
                f"policy {policy.name} counts costs; give costs=[...], what an optimizer step costs with the "
                f"first 0..{self.freezer.num_stages} stages frozen, in any one unit"
            )
        missing = [name for name in policy.needs_signals if name not in signals]
        if missing:
            raise ConfigError(
                f"policy {policy.name} decides by {', '.join(missing)}; say by signals={missing!r} that you "
                "will report it in every epoch"
            )

    def _rates_by_stage(self) -> StageRates:
        if self._rates is None:
            raise ConfigError(
                f"policy {self.policy.name} gives each stage a learning rate of its own; give optimizer=..., "
                "made of freezer.parameter_groups()"
            )
        return self._rates


def _check_ranks(decision: Decision) -> None:
    if dist.is_available() and dist.is_initialized():
        rows: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(rows, decision)
        if any(row != rows[0] for row in rows):
            raise TrainingError(
                "all ranks must freeze the same stages, but they would freeze "
                f"{', '.join(str(row.num_frozen) for row in rows)}; report values that are the same on all "
                "ranks, reduced over them"
            )
