"""EfficientNets (arXiv 1905.11946)."""

from __future__ import annotations

from torch import nn
from torchvision import models

from dbf_ray.detectors.backbones.parts import STRIDES, Parts


def cut_efficientnet(network: models.EfficientNet) -> Parts:
    """Seven groups of blocks, cut before those that halve the map. Dropped: the last 1 x 1 convolution,
    ``features.8``, and ``classifier``.
    """
    features = network.features
    stages: list[nn.Module] = [features[0:3], features[3:4], features[4:6], features[6:8]]
    return stages, [features[last][-1].out_channels for last in (2, 3, 5, 7)], STRIDES
