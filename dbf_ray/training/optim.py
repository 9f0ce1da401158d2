"""Optimizers over a detector's parameters and the learning rate as a function of time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from dbf_ray.errors import ConfigError


def parameter_groups(
    detector: nn.Module,
    stages: Sequence[Sequence[nn.Parameter]],
    weight_decay: float,
    backbone_lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Optimizer groups: one per backbone stage and one for the rest, each split into decayed and not decayed
    parameters.

    Parameters of one dimension (norms, biases) have no weight decay. Every group carries ``stage`` (0-based,
    -1 for the rest) and ``factor``, its constant share of the learning rate. Frozen parameters are in, too:
    freezing never changes the groups.
    """
    stage_of = {id(parameter): index for index, stage in enumerate(stages) for parameter in stage}
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for parameter in detector.parameters():
        members.setdefault((stage_of.get(id(parameter), -1), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decayed else 0.0,
            "stage": stage,
            "factor": 1.0 if stage < 0 else backbone_lr_factor,
        }
        for (stage, decayed), parameters in sorted(members.items(), key=lambda item: item[0])
    ]


def make_optimizer(
    name: Literal["sgd", "adamw"], groups: list[dict[str, Any]], lr: float, momentum: float = 0.9
) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW (betas 0.9, 0.999), over :func:`parameter_groups`."""
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    raise ConfigError(f"unknown optimizer {name!r}; known: sgd, adamw")


@dataclass(frozen=True)
class LearningRate:
    """The learning rate at an optimizer step: linear warm-up, then a constant, step or cosine schedule.

    Attributes:
        base: learning rate after warm-up.
        schedule: "constant"; "step": times ``gamma`` from each milestone epoch on; "cosine": down to
            ``final_factor`` (arXiv 1608.03983, eq. 5, one cycle, by step).
        epochs: E.
        milestones: 0-based epochs from which the next factor ``gamma`` applies.
        warmup_steps: steps over which the rate rises linearly from ``warmup_factor`` times its value.
    """

    base: float
    schedule: Literal["constant", "step", "cosine"] = "constant"
    epochs: int = 1
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    final_factor: float = 0.0
    warmup_steps: int = 0
    warmup_factor: float = 1.0 / 3.0

    def at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate at 0-based optimizer step ``step`` of the whole training."""
        if self.schedule == "step":
            factor = self.gamma ** sum(step >= m * steps_per_epoch for m in self.milestones)
        elif self.schedule == "cosine":
            progress = step / max(1, self.epochs * steps_per_epoch - 1)
            factor = self.final_factor + (1 - self.final_factor) * (1 + math.cos(math.pi * progress)) / 2
        else:
            factor = 1.0
        if step < self.warmup_steps:
            factor *= self.warmup_factor + (1 - self.warmup_factor) * step / self.warmup_steps
        return self.base * factor


def set_learning_rate(
    optimizer: torch.optim.Optimizer, lr: float, stage_factors: Sequence[float] | None = None
) -> None:
    """Set every group's rate to ``lr`` times its constant factor, times its stage's entry in
    ``stage_factors`` if given.
    """
    for group in optimizer.param_groups:
        stage = group["stage"]
        chosen = 1.0 if stage_factors is None or stage < 0 else stage_factors[stage]
        group["lr"] = lr * group["factor"] * chosen


def forget(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Drop the optimizer's state (momentum, moments, step counts) of ``parameters``, as if they had never
    been stepped.
    """
    for parameter in parameters:
        optimizer.state.pop(parameter, None)
