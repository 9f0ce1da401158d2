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


class StageRates:
    """Multiplies each group's rate by its stage's factor within ``optimizer.step`` alone: schedulers
    of rates and checkpoints see it without. Of several for one optimizer the last one made counts.

    Args:
        optimizer: has every parameter of ``stages``.
        stages: the parameters of each of K stages.

    Attributes:
        factors: K numbers, or None for 1 everywhere.

    Raises:
        ConfigError: the optimizer lacks a parameter.
    """

    def __init__(self, optimizer: Optimizer, stages: Sequence[Sequence[nn.Parameter]]) -> None:
        self.factors: Sequence[float] | None = None
        self._optimizer, self._rates = optimizer, list[Any]()
        self._stage_of = {id(p): k for k, stage in enumerate(stages) for p in stage}
        inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for number, stage in enumerate(stages, start=1):
            missing = sum(id(p) not in inside for p in stage)
            if missing:
                raise ConfigError(
                    f"the optimizer must have every parameter that will be trained, frozen now or not; of "
                    f"stage {number} it lacks {missing} of {len(stage)}; make it of all parameters"
                )
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
                    f"where stages have learning rates of their own, each group of the optimizer must be of "
                    f"one stage; group {number} has parameters of {names}; use freezer.parameter_groups()"
                )

    def _scale(self, optimizer: Optimizer, *_: Any) -> None:
        self._restore(optimizer)  # after a step that failed half-way
        if self.factors is not None:
            self._rates = [group["lr"] for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                stage = self._stage_of.get(id(group["params"][0]))
                group["lr"] = group["lr"] * (1.0 if stage is None else self.factors[stage])

    def _restore(self, optimizer: Optimizer, *_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self._rates, strict=False):
            group["lr"] = rate
        self._rates = []
