"""The freezing scheduler: asks the policy when a block of optimizer steps begins, and makes its decision true
on every rank.

A block is an epoch, several, or ``every`` optimizer steps. In order: the signals of the block before, the
decision, norm buffers made equal on all ranks, the freezer, optimizer state of what thaws, DDP built anew if
the set of trained parameters changed, and signals of the new block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Freezer, Horizon, Policy, stage_parameters
from dbf_ray.training.ddp import DynamicDDP, equalize_norm_buffers
from dbf_ray.training.optim import forget
from dbf_ray.training.signals import Signal


@dataclass(frozen=True)
class Thaw:
    """What happens to a stage that is trained again after a frozen span.

    Attributes:
        momentum: "keep" the optimizer's state of its parameters, or "reset" it, as if they had never been
            stepped.
        rewarm_steps: optimizer steps over which its learning rate rises linearly to its value; 0: none.
        rewarm_after: least number of frozen blocks in a row after which it does.
        rewarm_factor: the rate starts at this share of its value.
    """

    momentum: Literal["keep", "reset"] = "keep"
    rewarm_steps: int = 0
    rewarm_after: int = 1
    rewarm_factor: float = 1.0 / 3.0


@dataclass
class SchedulerState:
    """Where a scheduler stands, JSON-able: what a checkpoint keeps beside the signals.

    Attributes:
        policy: the policy's own state.
        prefixes: effective prefix of every block begun.
        lr_factors: of the block under way, a number for each stage; None for 1 everywhere.
        frozen_blocks: for each stage the frozen blocks in a row up to now.
        thawed_at: for each stage the optimizer step from which its rate warms up again; None: it does not.
        values: signals of the block under way that are complete.
        span: optimizer step at which the prefix in force came into force.
        orientations: epoch for which the orientations now shown were drawn, and
        drawn_for: the ``span`` in which they were.
    """

    policy: dict[str, Any] = field(default_factory=dict)
    prefixes: list[int] = field(default_factory=list)
    lr_factors: list[float] | None = None
    frozen_blocks: list[int] = field(default_factory=list)
    thawed_at: list[int | None] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    span: int = 0
    orientations: int = 0
    drawn_for: int = -1


class FreezingScheduler:
    """Call :meth:`before_step` before each optimizer step, :meth:`on_gradients` and :meth:`on_optimizer_step`
    within it, :meth:`after_step` after it.

    Args:
        policy: decides.
        horizon: the run's blocks, steps in each, seed, costs.
        freezer: applies.
        ddp: of the detector, rebuilt when what is trained changes.
        optimizer: of the detector's parameters.
        signals: those that the policy asks for, by name.
        thaw: what happens to stages that are trained again.

    Raises:
        ConfigError: the policy cannot serve the run.
    """

    def __init__(
        self,
        policy: Policy,
        horizon: Horizon,
        freezer: Freezer,
        ddp: DynamicDDP,
        optimizer: torch.optim.Optimizer,
        signals: Mapping[str, Signal] | None = None,
        thaw: Thaw | None = None,
    ) -> None:
        policy.check(horizon)
        self.policy, self.horizon, self.freezer = policy, horizon, freezer
        self.ddp, self.optimizer = ddp, optimizer
        self.signals, self.thaw = dict(signals or {}), thaw or Thaw()
        self.state = SchedulerState(
            frozen_blocks=[0] * freezer.num_stages, thawed_at=[None] * freezer.num_stages
        )
        self._in_force = False  # whether the freezer holds the state's last decision
        self._loaded_signals: dict[str, Any] = {}
        self._stages = stage_parameters(ddp.module.backbone)  # type: ignore[arg-type]

    @property
    def num_stages(self) -> int:
        """K."""
        return self.freezer.num_stages

    @property
    def num_frozen(self) -> int:
        """The effective prefix in force."""
        return self.freezer.num_frozen

    def before_step(self, step: int) -> list[float]:
        """Begin a block if one is due at optimizer step ``step`` of the whole run, 0-based. A collective.

        Returns:
            Each stage's learning-rate factor.
        """
        if step % self.horizon.block_steps == 0:
            self._begin(step)
        elif not self._in_force:  # resumed within a block
            self._apply(self.state.prefixes[-1])
            for name, signal in self.signals.items():
                signal.load_state_dict(self._loaded_signals[name])
        factors = self.state.lr_factors or [1.0] * self.num_stages
        return [factor * self._rewarm_factor(stage, step) for stage, factor in enumerate(factors)]

    def orientations_of(self, epoch: int) -> int:
        """The epoch whose orientations an epoch shows where each image has one orientation per frozen span;
        asked after :meth:`before_step` of its first step.

        A frozen span goes on while a policy freezes the same prefix, beyond what is always frozen. For one
        that begins within an epoch orientations are drawn at the next epoch's begin.
        """
        if self.state.drawn_for != self.state.span or self.num_frozen <= self.freezer.always_frozen:
            self.state.orientations, self.state.drawn_for = epoch, self.state.span
        return self.state.orientations

    def on_gradients(self) -> None:
        """A step's gradients are complete, and not clipped yet."""
        for signal in self.signals.values():
            signal.on_gradients()

    def on_optimizer_step(self) -> None:
        """The optimizer has made its step."""
        for signal in self.signals.values():
            signal.on_optimizer_step()

    def after_step(self, step: int) -> None:
        """The step is over; at a block's end take the signals that are complete. A collective there."""
        last = step + 1 == self.horizon.all_steps  # after which nobody decides
        if (step + 1) % self.horizon.block_steps == 0 and self.signals and not last:
            equalize_norm_buffers(self.ddp.module)
            self.state.values = {
                name: signal.value() for name, signal in self.signals.items() if signal.complete_at_end
            }

    def on_evaluation(self, metrics: dict[str, float]) -> None:
        """The detector was evaluated after the last step."""
        for signal in self.signals.values():
            signal.on_evaluation(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint between two optimizer steps."""
        return {
            "state": vars(self.state).copy(),
            "signals": {name: signal.state_dict() for name, signal in self.signals.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo of :meth:`state_dict`; the decision in force is applied before the next step.

        What a policy that needs no signals remembers is replayed: the state may be of another policy, which
        decided alike so far and remembers other things.

        Raises:
            ConfigError: it decided otherwise so far.
        """
        self.state = SchedulerState(**state["state"])
        if not self.policy.needs_signals:
            self._replay()
        self._loaded_signals = state["signals"]
        for name, signal in self.signals.items():
            signal.load_state_dict(state["signals"][name])
        self._in_force = False

    def _replay(self) -> None:
        state = self.state
        decided, state.policy = self.policy.replay(self.horizon, len(state.prefixes))
        prefixes = [max(decision.num_frozen, self.freezer.always_frozen) for decision in decided]
        if prefixes != state.prefixes:
            raise ConfigError(
                f"policy {self.policy.name} must have decided so far as the state does that it goes on from, "
                f"{state.prefixes}, got {prefixes}; go on with the policy that the state is of, or begin anew"
            )
        factors = decided[-1].lr_factors if decided else None
        state.lr_factors = None if factors is None else list(factors)

    def _begin(self, step: int) -> None:
        state, stages = self.state, self.num_stages
        values = {name: None if not state.prefixes else state.values.get(name) for name in self.signals}
        for name, signal in self.signals.items():
            if state.prefixes and not signal.complete_at_end:
                values[name] = signal.value()
        block = self.horizon.check(step // self.horizon.block_steps)
        decision, state.policy = self.policy.decide(block, self.horizon, values, state.policy)
        before = state.prefixes[-1] if state.prefixes else stages
        frozen = max(decision.num_frozen, self.freezer.always_frozen)
        equalize_norm_buffers(self.ddp.module)
        self._apply(frozen)
        for stage in range(stages):
            if stage < frozen:
                state.frozen_blocks[stage] += 1
            elif state.frozen_blocks[stage]:
                self._thaw(stage, step)
        if frozen != before or not state.prefixes:
            state.span = step
        state.prefixes.append(frozen)
        state.lr_factors = None if decision.lr_factors is None else list(decision.lr_factors)
        state.values = {}
        for signal in self.signals.values():
            signal.begin(frozen, before)

    def _apply(self, frozen: int) -> None:
        if self.freezer.apply(frozen) or self.ddp.rebuilds == 0:
            self.ddp.rebuild()
        self._in_force = True

    def _thaw(self, stage: int, step: int) -> None:
        if self.thaw.momentum == "reset":
            forget(self.optimizer, self._stages[stage])
        state, thaw = self.state, self.thaw
        began, froze = state.thawed_at[stage], step - state.frozen_blocks[stage] * self.horizon.block_steps
        if thaw.rewarm_steps > 0 and state.frozen_blocks[stage] >= thaw.rewarm_after:
            state.thawed_at[stage] = step
        elif (
            began is not None and froze < began + thaw.rewarm_steps
        ):  # a short span cut a warm-up off: it goes on
            state.thawed_at[stage] = began + step - froze
        else:
            state.thawed_at[stage] = None
        state.frozen_blocks[stage] = 0

    def _rewarm_factor(self, stage: int, step: int) -> float:
        began = self.state.thawed_at[stage]
        if began is None or step >= began + self.thaw.rewarm_steps:
            return 1.0
        return (
            self.thaw.rewarm_factor + (1 - self.thaw.rewarm_factor) * (step - began) / self.thaw.rewarm_steps
        )
