"""Learning rates by stage in anybody's optimizer, beside whatever else sets rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from dbf_ray.errors import ConfigError

_HOOKS: WeakKeyDictionary[Optimizer, list[RemovableHandle]] = WeakKeyDictionary()


def check_parameters(optimizers: Sequence[Optimizer], stages: Sequence[Sequence[nn.Parameter]]) -> None:
    """Refuse optimizers that together lack a parameter of ``stages``.

    Raises:
        ConfigError: naming the stage.
    """
    inside = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for number, stage in enumerate(stages, start=1):
        missing = sum(id(p) not in inside for p in stage)
        if missing:
            raise ConfigError(
                "each parameter that will be trained must be in an optimizer, frozen now or not; of stage "
                f"{number} {missing} of {len(stage)} are in none; make it of all parameters"
            )


class StageRates:
    """Multiplies each group's rate by its stage's factor within ``optimizer.step`` alone: schedulers
    of rates and checkpoints see it without. Of several for one optimizer the last one made counts.

    Args:
        optimizer: of the stages' parameters.
        stages: all parameters of each of K stages, also those that are never trained.

    Attributes:
        factors: K numbers, or None for 1 everywhere.
    """

    def __init__(self, optimizer: Optimizer, stages: Sequence[Sequence[nn.Parameter]]) -> None:
        self.factors: Sequence[float] | None = None
        self._optimizer, self._rates = optimizer, list[Any]()
        self._stage_of = {id(p): k for k, stage in enumerate(stages) for p in stage}
        for handle in _HOOKS.pop(optimizer, []):
            handle.remove()
        hooks = optimizer.register_step_pre_hook, optimizer.register_step_post_hook
        _HOOKS[optimizer] = [hooks[0](self._scale), hooks[1](self._restore)]

    def check_groups(self) -> None:
        """Refuse an optimizer of which a group holds parameters of more than one stage.

        Raises:
            ConfigError: naming group and stages.
        """
        for number, group in enumerate(self._optimizer.param_groups):
            stages = sorted({self._stage_of.get(id(p), -1) for p in group["params"]})
            if len(stages) > 1:
                names = ", ".join("no stage" if k < 0 else f"stage {k + 1}" for k in stages)
                raise ConfigError(
                    "where stages have learning rates of their own, each group of the optimizer must be of "
                    f"one stage; group {number} has parameters of {names}; use freezer.parameter_groups()"
                )

    def _scale(self, optimizer: Optimizer, *_: Any) -> None:
        self._restore(optimizer)  # after a step that failed half-way
        if self.factors is not None:
            self._rates = [group["lr"] for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                stage = next((self._stage_of.get(id(p)) for p in group["params"]), None)  # one may be empty
                group["lr"] = group["lr"] * (1.0 if stage is None else self.factors[stage])

    def _restore(self, optimizer: Optimizer, *_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self._rates, strict=False):
            group["lr"] = rate
        self._rates = []
