"""MobileNetV2 (arXiv 1801.04381) and MobileNetV3 (arXiv 1905.02244): a row of blocks, cut before each halving
of the map.
"""

from __future__ import annotations

from typing import Any

from torchvision import models

from dbf_ray.detectors.backbones.parts import STRIDES, Parts


def cut_mobilenet_v2(network: models.MobileNetV2) -> Parts:
    """Dropped: the last 1 x 1 convolution to 1280 channels, ``features.18``, and ``classifier``."""
    return _cut(network.features, 4, 7, 14, 18)


def cut_mobilenet_v3_large(network: models.MobileNetV3) -> Parts:
    """Dropped: the last 1 x 1 convolution to 960 channels, ``features.16``, and ``classifier``."""
    return _cut(network.features, 4, 7, 13, 16)


def cut_mobilenet_v3_small(network: models.MobileNetV3) -> Parts:
    """Dropped: the last 1 x 1 convolution to 576 channels, ``features.12``, and ``classifier``."""
    return _cut(network.features, 2, 4, 9, 12)


def _cut(features: Any, *ends: int) -> Parts:
    """Stages that end before these blocks of a sequence; a block knows its channels."""
    stages = [features[start:end] for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    return stages, [stage[-1].out_channels for stage in stages], STRIDES
