"""The smallest backbone there can be, for tests that train many times."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision import models
from torchvision.ops import StochasticDepth

from dbf_ray.detectors.backbones.convnext import cut_convnext
from dbf_ray.detectors.backbones.parts import STRIDES, Parts


class Narrow(nn.Module):
    """A convolution and a norm for each stage: as little to compile as there can be."""

    def __init__(self, weights: None = None) -> None:
        super().__init__()
        widths = (3, 8, 8, 16, 16)
        convs = [
            nn.Conv2d(i, o, k, stride=k) for i, o, k in zip(widths, widths[1:], (4, 2, 2, 2), strict=False)
        ]
        self.stages = nn.ModuleList(
            [nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()) for conv in convs]
        )


def cut_narrow(network: Narrow) -> Parts:
    return list(network.stages), [8, 8, 16, 16], STRIDES


class Dropping(Narrow):
    """One that drops stages of some images while it is trained, and so draws."""

    def __init__(self, weights: None = None) -> None:
        super().__init__(weights)
        for stage in self.stages:
            stage.append(StochasticDepth(0.2, "row"))


def shallow_convnext(weights: None = None) -> nn.Module:
    blocks = [models.convnext.CNBlockConfig(i, o, 1) for i, o in ((12, 24), (24, 48), (48, 96), (96, None))]
    return models.ConvNeXt(blocks, stochastic_depth_prob=0.3)


# rows for BACKBONES
NARROW: dict[str, Any] = {
    "narrow": (Narrow, cut_narrow),
    "dropping": (Dropping, cut_narrow),
    "shallow_convnext": (shallow_convnext, cut_convnext),
}
