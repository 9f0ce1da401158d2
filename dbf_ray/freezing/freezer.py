"""The freezer: makes a decision true in a backbone, and undoes it exactly.

A frozen prefix runs under ``torch.no_grad()`` in eval mode, so that it keeps no activations and its norm
statistics and drop-path stand still. Its parameters have ``requires_grad=False`` and ``grad=None``: an
optimizer skips a parameter without a gradient entirely, while ``grad`` of zeros would let momentum and weight
decay go on moving it. Parameters are never taken out of the optimizer, so their state (momentum, Adam's
moments) is there again when they are unfrozen.
"""

from __future__ import annotations

from torch import nn

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.stages import check_backbone, effective_prefix


class Freezer:
    """Freezes and unfreezes leading stages of one backbone.

    Parameters that did not require a gradient when the freezer was made are left so for ever. Call
    :meth:`apply` between optimizer steps only, and rebuild DDP when it returns True.

    Args:
        backbone: a module that meets :class:`dbf_ray.freezing.stages.Staged`.

    Raises:
        ConfigError: the backbone does not meet the protocol, or another freezer has frozen it already.
    """

    def __init__(self, backbone: nn.Module) -> None:
        check_backbone(backbone)
        if backbone.num_frozen > backbone.always_frozen:  # type: ignore[operator]
            raise ConfigError(
                f"a freezer must be made on an unfrozen backbone, this one has {backbone.num_frozen} stages "
                f"frozen already; "
                "use the freezer that froze it, or apply(0) with it first"
            )
        self._backbone = backbone
        self._stages = [list(stage) for stage in _trainable(backbone)]

    @property
    def num_stages(self) -> int:
        """K, the number of stages."""
        return len(self._stages)

    @property
    def always_frozen(self) -> int:
        """Leading stages that are frozen whatever a policy says."""
        return int(self._backbone.always_frozen)  # type: ignore[arg-type]

    @property
    def num_frozen(self) -> int:
        """The effective prefix in force: how many leading stages are frozen now."""
        return int(self._backbone.num_frozen)  # type: ignore[arg-type]

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
        for index, parameters in enumerate(self._stages):
            trained = index >= effective
            for parameter in parameters:
                changed |= parameter.requires_grad is not trained
                parameter.requires_grad_(trained)
                if not trained:
                    parameter.grad = None
        self._backbone.num_frozen = effective  # type: ignore[assignment]
        self._backbone.train(self._backbone.training)
        self._check_still(effective)
        return changed

    def _check_still(self, effective: int) -> None:
        stages = self._backbone.stages
        assert isinstance(stages, nn.ModuleList)
        for number, stage in enumerate(list(stages)[:effective], start=1):
            moving = [name or "itself" for name, module in stage.named_modules() if module.training]
            if moving:
                raise ConfigError(
                    f"backbone {type(self._backbone).__name__}: train() must keep the first num_frozen = "
                    f"{effective} stages "
                    f"in eval mode; in stage {number} {moving[0]} is in training mode"
                )


def _trainable(backbone: nn.Module) -> list[list[nn.Parameter]]:
    stages = backbone.stages
    assert isinstance(stages, nn.ModuleList)
    return [[p for p in stage.parameters() if p.requires_grad] for stage in stages]
