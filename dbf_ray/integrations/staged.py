"""What the callbacks of all trainers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Freezer, FreezingSchedule, Policy
from dbf_ray.freezing.stage_rates import check_parameters


class StagedTraining:
    """Freezes stages of a trainer's model from epoch to epoch, and hands it back unfrozen.

    Args:
        policy: decides; of :func:`dbf_ray.make_policy`.
        stages: of the trainer's model, as :meth:`dbf_ray.Freezer.of` takes them.
        signals: for policies that decide by them, the name of the metric that each is in the trainer's
            evaluation: ``{"map50": "val_map50"}``. None in an epoch without one.
        options: ``seed`` and ``costs`` of :class:`dbf_ray.FreezingSchedule`.
    """

    def __init__(
        self,
        policy: Policy,
        stages: Sequence[str | Sequence[str]],
        signals: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.policy, self.stages, self.signals, self.options = policy, stages, dict(signals or {}), options
        self.schedule: FreezingSchedule | None = None
        self._evaluated: set[str] | None = None  # metrics of the epoch's evaluations

    def start(
        self,
        model: nn.Module,
        epochs: int,
        optimizers: Sequence[Optimizer],
        state: Mapping[str, Any],
        ranks: int = 1,
    ) -> None:
        """The model is wrapped and its optimizers made, of everything; freezing may begin, or go on from
        ``state``. What an interrupted training left frozen is unfrozen.

        Raises:
            ConfigError: on several ranks an interrupted training left stages frozen; the optimizers lack a
                parameter; as of :meth:`dbf_ray.Freezer.of` and :class:`dbf_ray.FreezingSchedule`.
        """
        if ranks > 1 and self.schedule is not None and self.schedule.num_frozen:
            raise ConfigError(
                f"on {ranks} ranks a training must begin unfrozen, as DDP keeps to what was trained when it "
                f"wrapped the model; one that was interrupted left {self.schedule.num_frozen} stages frozen; "
                "call end() of this callback, then make the trainer anew"
            )
        self.end()
        freezer = Freezer.of(model, self.stages)
        if optimizers:
            check_parameters(optimizers, freezer.trainable_parameters)
        only = optimizers[0] if len(optimizers) == 1 else None
        self.schedule = FreezingSchedule(
            self.policy, freezer, epochs, signals=self.signals, optimizer=only, **self.options
        )
        if state:
            self.schedule.load_state_dict(state)

    def begin(self, epoch: int) -> None:
        """An epoch begins, or goes on.

        Raises:
            ConfigError: the epoch before was evaluated without the metric of a signal.
        """
        assert self.schedule is not None
        if epoch == self.schedule.epoch:
            self.schedule.begin_epoch(epoch)
            return
        there = self._evaluated
        if there is not None and (missing := [m for m in self.signals.values() if m not in there]):
            raise ConfigError(
                f"signals must name metrics of the evaluation, which has no {missing[0]!r}, only "
                f"{', '.join(sorted(there))}"
            )
        self._evaluated = None
        self.schedule.begin_epoch(epoch)
        self.schedule.report(**dict.fromkeys(self.signals))  # until they are measured

    def measure(self, metrics: Mapping[str, Any]) -> None:
        """The epoch was evaluated, on one of several sets or on all; what is evaluated outside of a training
        is nothing to it.
        """
        if self.schedule is not None:
            self._evaluated = {*(self._evaluated or ()), *metrics}
            measured = {name: metrics[key] for name, key in self.signals.items() if key in metrics}
            self.schedule.report(**measured)

    def end(self) -> None:
        """Training has ended; another one may wrap and optimise everything again."""
        if self.schedule is not None:
            self.schedule.freezer.apply(0)
        self.schedule = self._evaluated = None

    def saved(self) -> dict[str, Any]:
        """For a checkpoint; empty where nothing is under way."""
        return {} if self.schedule is None else self.schedule.state_dict()


def require_find_unused(ranks: int, finds_unused: bool, option: str) -> None:
    """Refuse a DDP that stops in a frozen epoch, or lets ranks drift apart.

    Raises:
        ConfigError: there are several ranks, and it does not look for unused parameters.
    """
    if ranks > 1 and not finds_unused:
        raise ConfigError(
            f"on {ranks} ranks DDP must find unused parameters, as this trainer wraps the model once while "
            f"what is trained changes; set {option} (frozen parameters are all-reduced all the same), or "
            "write a loop with dbf_ray.FreezingSchedule, which says when to wrap anew"
        )
