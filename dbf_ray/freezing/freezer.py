"""The freezer: makes a decision true in a module, and undoes it exactly.

A frozen stage stays in eval mode, so that its norm statistics and drop-path stand still. Its parameters have
``requires_grad=False`` and ``grad=None``: an optimizer skips a parameter without a gradient entirely, while
``grad`` of zeros would let momentum and weight decay go on moving it; and autograd keeps no activations of a
frozen prefix. Parameters are never taken out of the optimizer, so their state (momentum, Adam's moments) is
there again when they are unfrozen. Our own backbones moreover run a frozen prefix under ``torch.no_grad()``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import nn

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.named import NamedStages
from dbf_ray.freezing.stages import check_backbone, effective_prefix


class Freezer:
    """Freezes and unfreezes leading stages of one module: of a backbone that is made of stages, or with
    :meth:`of` of any module.

    Parameters that did not require a gradient when the freezer was made are left so for ever. Call
    :meth:`apply` between optimizer steps only, and rebuild DDP when it returns True.

    Args:
        backbone: a module that meets :class:`dbf_ray.freezing.stages.Staged`.

    Raises:
        ConfigError: the backbone does not meet the protocol, or another freezer has frozen it already.

    Example:
        >>> model = torchvision.models.resnet18()
        >>> freezer = Freezer.of(model, stages=[["conv1", "bn1", "layer1"], "layer2", "layer3", "layer4"])
        >>> freezer.apply(2)  # what is trained has changed
        True
        >>> model.train().layer2.training, model.layer3.training
        (False, True)
    """

    def __init__(self, backbone: nn.Module | NamedStages) -> None:
        if isinstance(backbone, nn.Module):
            check_backbone(backbone)
            if backbone.num_frozen > backbone.always_frozen:  # type: ignore[operator]
                raise ConfigError(
                    f"a freezer must be made on an unfrozen backbone, this one has {backbone.num_frozen} "
                    "stages frozen already; use the freezer that froze it, or apply(0) with it first"
                )
        self._backbone = backbone
        self._trainable = [[p for p in stage if p.requires_grad] for stage in self.stage_parameters]

    @classmethod
    def of(cls, module: nn.Module, stages: Sequence[str | Sequence[str]], always_frozen: int = 0) -> Self:
        """A freezer of any module, which stays as it is: nothing in it is replaced, its ``state_dict`` keeps
        its keys.

        A parameter that a stage shares with the rest of the module is frozen with the stage. Modules in eval
        mode in a module in training mode are left so, like parameters that do not require a gradient.

        Args:
            module: a classifier, a detector, a wrapper around one.
            stages: K entries in forward order, each the name of a submodule or a list of names:
                ``[["conv1", "bn1", "layer1"], "layer2"]``; nested ones as ``backbone.body.layer1``. Also of a
                single parameter, as a ViT's ``class_token``. All that comes before a stage should be in one,
                else autograd goes back through it.
            always_frozen: leading stages that are never trained, 0..K.

        Raises:
            ConfigError: a name is unknown, named twice, or known to be called before one of an earlier stage;
                a stage has no parameters, or shares one with another; another freezer has frozen a stage.
        """
        return cls(NamedStages(module, stages, always_frozen))

    @property
    def num_stages(self) -> int:
        """K, the number of stages."""
        return len(self._trainable)

    @property
    def always_frozen(self) -> int:
        """Leading stages that are frozen whatever a policy says."""
        return int(self._backbone.always_frozen)  # type: ignore[arg-type]

    @property
    def num_frozen(self) -> int:
        """The effective prefix in force: how many leading stages are frozen now."""
        return int(self._backbone.num_frozen)  # type: ignore[arg-type]

    @property
    def stage_parameters(self) -> list[list[nn.Parameter]]:
        """All parameters of each stage: K lists."""
        return [list(stage.parameters()) for stage in self._stages]

    @property
    def trainable_parameters(self) -> list[list[nn.Parameter]]:
        """Those of each stage that are trained while it is not frozen: K lists."""
        return [list(stage) for stage in self._trainable]

    def parameter_groups(self, **options: Any) -> list[dict[str, Any]]:
        """Groups for an optimizer: one of each stage, and one of all other parameters of the module. Frozen
        parameters are in, too.

        Args:
            options: of all groups, as ``weight_decay=1e-4``.
        """
        stages = self.stage_parameters
        inside = {id(p) for stage in stages for p in stage}
        rest = [p for p in self._backbone.parameters() if id(p) not in inside]
        return [{"params": group, **options} for group in (*stages, rest) if group]

    def apply(self, num_frozen: int) -> bool:
        """Freeze the first ``max(num_frozen, always_frozen)`` stages and unfreeze all others. Idempotent and
        reversible.

        Args:
            num_frozen: the policy's n, 0..K.

        Returns:
            Whether the set of trained parameters changed, so that DDP has to be built anew.

        Raises:
            ConfigError: ``num_frozen`` is out of range, or the backbone's ``train()`` does not keep frozen
                stages in eval mode.
        """
        effective = effective_prefix(num_frozen, self.num_stages, self.always_frozen)
        changed = False
        for index, parameters in enumerate(self._trainable):
            trained = index >= effective
            for parameter in parameters:
                changed |= parameter.requires_grad is not trained
                parameter.requires_grad_(trained)
                if not trained:
                    parameter.grad = None
        self._backbone.num_frozen = effective
        self._backbone.train(self._backbone.training)
        self._check_still(effective)
        return changed

    def _check_still(self, effective: int) -> None:
        for number, stage in enumerate(self._stages[:effective], start=1):
            moving = [name or "itself" for name, module in stage.named_modules() if module.training]
            if moving:
                raise ConfigError(
                    f"backbone {type(self._backbone).__name__}: train() must keep the first num_frozen = "
                    f"{effective} stages in eval mode; in stage {number} {moving[0]} is in training mode"
                )

    @property
    def _stages(self) -> list[nn.Module]:
        stages = self._backbone.stages
        assert isinstance(stages, nn.ModuleList)
        return list(stages)
