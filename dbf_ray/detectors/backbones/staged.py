"""A backbone as ordered stages, of which leading ones can run without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dbf_ray.detectors.backbones.parts import NormedStage
from dbf_ray.detectors.precision import uncached_autocast


class StagedBackbone(nn.Module):
    """A backbone cut into K ordered stages.

    Args:
        stages: the stages in forward order; stage k takes what stage k-1 gives. A :class:`NormedStage` gives the next stage its plain map.
        out_channels: channels of each stage's output.
        strides: stride in pixels of each stage's output.
        norm_eval: keep all batch norms in eval mode (running statistics), also while training. Layer norms have no mode.
        frozen_stages: leading stages that are never trained; a :class:`dbf_ray.freezing.Freezer` sees to it.

    Attributes:
        no_grad_stages: leading stages that forward runs under ``torch.no_grad()`` and that stay in eval mode (norms and drop-path are
            still) whatever ``train()`` is called with. 0 unless somebody sets it.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        out_channels: Sequence[int],
        strides: Sequence[int],
        *,
        norm_eval: bool = True,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.out_channels, self.strides = list(out_channels), list(strides)
        self.norm_eval = norm_eval
        self.frozen_stages = frozen_stages
        self.no_grad_stages = 0
        self.train()

    def output_parameters(self, stages: int) -> list[nn.Parameter]:
        """Parameters that only the outputs of the first ``stages`` stages use: their norms, where they have one."""
        return [p for stage in self.stages[:stages] if isinstance(stage, NormedStage) for p in stage.norm.parameters()]

    @property
    def num_stages(self) -> int:
        """K, the number of stages."""
        return len(self.stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps [B, out_channels[k], ceil(H / strides[k]), ceil(W / strides[k])] of every stage, for images [B, 3, H, W]."""
        outputs: list[Tensor] = []
        features = images
        with torch.no_grad(), uncached_autocast(images.device):
            for stage in self.stages[: self.no_grad_stages]:
                features = stage(features)
                outputs.append(_output(stage, features))
        for stage in self.stages[self.no_grad_stages :]:
            features = stage(features)
            outputs.append(_output(stage, features))
        return outputs

    def train(self, mode: bool = True) -> StagedBackbone:
        """As ``nn.Module.train``, but frozen stages stay in eval mode, and with ``norm_eval`` so do all batch norms."""
        super().train(mode)
        for stage in self.stages[: self.no_grad_stages]:
            stage.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def _output(stage: nn.Module, features: Tensor) -> Tensor:
    """A stage's output for what its forward gave."""
    return stage.output(features) if isinstance(stage, NormedStage) else features
