"""What the callbacks of all trainers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Freezer, FreezingSchedule, Policy


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

    def start(
        self, model: nn.Module, epochs: int, optimizer: Optimizer | None, state: Mapping[str, Any]
    ) -> None:
        """The model is wrapped and its optimizer made, of everything; freezing may begin, or go on from
        ``state``.
        """
        freezer = Freezer.of(model, self.stages)
        self.schedule = FreezingSchedule(
            self.policy, freezer, epochs, signals=self.signals, optimizer=optimizer, **self.options
        )
        if state:
            self.schedule.load_state_dict(state)

    def begin(self, epoch: int) -> None:
        """An epoch begins, or goes on."""
        assert self.schedule is not None
        before = self.schedule.epoch
        self.schedule.begin_epoch(epoch)
        if epoch != before:
            self.schedule.report(**dict.fromkeys(self.signals))  # until they are measured

    def measure(self, metrics: Mapping[str, Any]) -> None:
        """The epoch was evaluated."""
        missing = [metric for metric in self.signals.values() if metric not in metrics]
        if missing:
            raise ConfigError(
                f"signals must name metrics of the evaluation, which has no {missing[0]!r}, only "
                f"{', '.join(metrics)}"
            )
        if self.schedule is not None:
            self.schedule.report(**{name: metrics[metric] for name, metric in self.signals.items()})

    def end(self) -> None:
        """Training has ended; another one may wrap and optimise everything again."""
        if self.schedule is not None:
            self.schedule.freezer.apply(0)
        self.schedule = None

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
            f"write a loop with dbf_ray.FreezingSchedule, which says when to wrap anew"
        )
