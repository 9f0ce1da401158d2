"""What a backbone must offer so that its leading stages can be frozen, and the small arithmetic of
prefixes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import nn

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies.base import require_int


class Staged(Protocol):
    """The protocol of a backbone that can be frozen by stages.

    Attributes:
        stages: the K parts in forward order, the stem in the first; together they hold every parameter of the
            backbone.
        num_stages: K >= 1.
        num_frozen: how many leading stages the forward pass runs under ``torch.no_grad()``, and ``train()``
            keeps in eval mode.
        always_frozen: leading stages that are never trained, whatever a policy says, 0..K.
        training: as in ``nn.Module``.
    """

    stages: nn.ModuleList
    num_stages: int
    num_frozen: int
    always_frozen: int
    training: bool

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode; must keep the first ``num_frozen`` stages in eval mode."""


def check_backbone(backbone: nn.Module) -> None:
    """Refuse a backbone that does not meet :class:`Staged`.

    Raises:
        ConfigError: naming the rule that is broken and the parameter or attribute that breaks it.
    """
    kind = type(backbone).__name__
    stages = getattr(backbone, "stages", None)
    if not isinstance(stages, nn.ModuleList) or not len(stages):
        raise ConfigError(
            "a backbone to freeze must have .stages, a non-empty nn.ModuleList in forward order with the "
            f"stem in the first; {kind}.stages is {type(stages).__name__}"
        )
    for attribute in ("num_stages", "num_frozen", "always_frozen"):
        low = 1 if attribute == "num_stages" else 0
        require_int(
            attribute, getattr(backbone, attribute, None), low=low, high=len(stages), owner=f"backbone {kind}"
        )
    if backbone.num_stages != len(stages):
        raise ConfigError(
            f"backbone {kind}: num_stages must be the number of stages, {len(stages)}, got "
            f"{backbone.num_stages}"
        )
    owner: dict[int, int] = {}
    for number, stage in enumerate(stages, start=1):
        for name, parameter in stage.named_parameters():
            if id(parameter) in owner:
                raise ConfigError(
                    f"backbone {kind}: each parameter must belong to one stage; {name} of stage {number} is "
                    f"shared with stage {owner[id(parameter)]}"
                )
            owner[id(parameter)] = number
    outside = [name for name, parameter in backbone.named_parameters() if id(parameter) not in owner]
    if outside:
        raise ConfigError(
            f"backbone {kind}: every parameter must belong to a stage, so that a frozen prefix is frozen "
            f"whole; outside of all stages: {', '.join(outside[:5])}{', ...' if len(outside) > 5 else ''}; "
            "move them into the stage that uses them"
        )


def stage_parameters(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of each stage, in forward order: K lists."""
    check_backbone(backbone)
    stages = backbone.stages
    assert isinstance(stages, nn.ModuleList)
    return [list(stage.parameters()) for stage in stages]


def effective_prefix(num_frozen: int, num_stages: int, always_frozen: int = 0) -> int:
    """The number of leading stages that are really frozen: max of the policy's and the always frozen ones.

    Raises:
        ConfigError: either number is not in 0..num_stages.
    """
    require_int("num_frozen", num_frozen, low=0, high=num_stages, owner="frozen prefix")
    require_int("always_frozen", always_frozen, low=0, high=num_stages, owner="frozen prefix")
    return max(num_frozen, always_frozen)


def budget(prefixes: Iterable[int], num_stages: int, always_frozen: int = 0) -> int:
    """Budget B of a timeline: the number of epochs (or blocks) whose effective prefix is below K, so that the
    backbone learns.
    """
    return sum(effective_prefix(n, num_stages, always_frozen) < num_stages for n in prefixes)
