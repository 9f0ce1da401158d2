"""ResNets (arXiv 1512.03385): stem and four layers."""

from __future__ import annotations

from torch import nn
from torchvision import models

from dbf_ray.detectors.backbones.parts import STRIDES, Parts


def cut_resnet(network: models.ResNet) -> Parts:
    """Stem (convolution, norm, pooling) and layer1, then one layer each. Dropped: ``fc``."""
    stem = [network.conv1, network.bn1, network.relu, network.maxpool]
    stages: list[nn.Module] = [
        nn.Sequential(*stem, network.layer1),
        network.layer2,
        network.layer3,
        network.layer4,
    ]
    last = network.layer4[-1]
    widest = last.conv3.out_channels if hasattr(last, "conv3") else last.conv2.out_channels
    return stages, [widest // 8, widest // 4, widest // 2, widest], STRIDES
