"""Pretrained torchvision backbones as ordered stages.

A backbone is one builder function and one row in :data:`BACKBONES`. All follow one interface, :class:`StagedBackbone`: a list of stages
in forward order, the stem in the first, one feature map out of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision import models

from dbf_ray.detectors.norms import convert_sync_batchnorm
from dbf_ray.errors import ConfigError, WeightsError


class StagedBackbone(nn.Module):
    """A backbone cut into K ordered stages.

    Args:
        stages: the stages in forward order; stage k takes what stage k-1 gives.
        out_channels: channels of each stage's output.
        strides: stride in pixels of each stage's output.
        norm_eval: keep all batch norms in eval mode (running statistics), also while training.
        frozen_stages: leading stages that are never trained.

    Attributes:
        no_grad_stages: leading stages that forward runs under ``torch.no_grad()`` and that stay in eval mode whatever
            ``train()`` is called with. 0 unless somebody sets it.
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

    @property
    def num_stages(self) -> int:
        """K, the number of stages."""
        return len(self.stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps [B, out_channels[k], H / strides[k], W / strides[k]] of every stage, for images [B, 3, H, W]."""
        outputs: list[Tensor] = []
        features = images
        with torch.no_grad():
            for stage in self.stages[: self.no_grad_stages]:
                features = stage(features)
                outputs.append(features)
        for stage in self.stages[self.no_grad_stages :]:
            features = stage(features)
            outputs.append(features)
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


def _resnet(network: models.ResNet) -> tuple[list[nn.Module], list[int], list[int]]:
    stem = [network.conv1, network.bn1, network.relu, network.maxpool]
    stages: list[nn.Module] = [nn.Sequential(*stem, network.layer1), network.layer2, network.layer3, network.layer4]
    last = network.layer4[-1]
    widest = last.conv3.out_channels if hasattr(last, "conv3") else last.conv2.out_channels
    return stages, [widest // 8, widest // 4, widest // 2, widest], [4, 8, 16, 32]


def _mobilenet_v2(network: models.MobileNetV2) -> tuple[list[nn.Module], list[int], list[int]]:
    features = network.features
    stages: list[nn.Module] = [features[0:4], features[4:7], features[7:14], features[14:18]]  # without the last 1 x 1 convolution
    return stages, [24, 32, 96, 320], [4, 8, 16, 32]


Cut = Callable[..., tuple[list[nn.Module], list[int], list[int]]]
BACKBONES: dict[str, tuple[Callable[..., nn.Module], Cut]] = {
    "mobilenet_v2": (models.mobilenet_v2, _mobilenet_v2),
    "resnet18": (models.resnet18, _resnet),
    "resnet50": (models.resnet50, _resnet),
}


def make_backbone(
    name: str,
    weights: str | Path | None = None,
    *,
    norm_eval: bool | Literal["sync"] = True,
    frozen_stages: int = 0,
) -> StagedBackbone:
    """Build a backbone by name.

    Args:
        name: a key of :data:`BACKBONES`.
        weights: None (random), ``"DEFAULT"`` (torchvision's, downloaded), or a state_dict file with torchvision's keys; a missing
            classifier is fine.
        norm_eval: batch norms always in eval mode (True), in train mode while trained (False), or with statistics over all ranks ("sync").
        frozen_stages: leading stages that are never trained, 0..K.

    Raises:
        ConfigError: unknown name, or ``frozen_stages`` out of range.
        WeightsError: the weights are missing, unreadable or do not fit.
    """
    if name not in BACKBONES:
        raise ConfigError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}")
    build, cut = BACKBONES[name]
    if weights == "DEFAULT":
        try:
            network = build(weights="DEFAULT")
        except OSError as error:
            raise WeightsError(f"cannot download torchvision's weights of {name}: {error}; give a state_dict file instead") from error
    else:
        network = build(weights=None)
        if weights is not None:
            load_backbone_weights(network, Path(weights), name)
    stages, channels, strides = cut(network)
    if not 0 <= frozen_stages <= len(stages):
        raise ConfigError(f"detector.frozen_stages must be in 0..{len(stages)} for {name}, got {frozen_stages}")
    backbone = StagedBackbone(stages, channels, strides, norm_eval=norm_eval is True, frozen_stages=frozen_stages)
    if norm_eval == "sync":
        convert_sync_batchnorm(backbone)
    return backbone


def load_backbone_weights(network: nn.Module, file: Path, name: str) -> None:
    """Load a state_dict file into a torchvision classifier; only keys of its classifier may be missing."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"weights file {file} does not exist; give the path of a state_dict for torchvision's {name}") from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"cannot read weights file {file}: {reason}; it must hold a plain state_dict saved by torch.save") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"weights file {file} must hold a state_dict (names to tensors), found {type(state).__name__}")
    own = network.state_dict()
    wrong = [f"{k} {tuple(v.shape)}, expected {tuple(own[k].shape)}" for k, v in state.items() if k in own and v.shape != own[k].shape]
    unknown = [key for key in state if key not in own]
    missing = [key for key in own if key not in state and not key.startswith(("classifier.", "fc.")) and "num_batches_tracked" not in key]
    for problem, keys in (("with another shape", wrong), ("that the model lacks", unknown), ("missing from the file", missing)):
        if keys:
            raise WeightsError(
                f"weights file {file} does not fit {name}: {len(keys)} tensors {problem}, first {keys[0]}; give {name}'s weights"
            )
    network.load_state_dict(state, strict=False)
