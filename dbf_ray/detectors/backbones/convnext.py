"""ConvNeXts (arXiv 2201.03545) with a layer norm on each output, as detectors use them."""

from __future__ import annotations

from torch import nn
from torchvision import models
from torchvision.models.convnext import LayerNorm2d

from dbf_ray.detectors.backbones.parts import STRIDES, NormedStage, PadToMultiple, Parts


def cut_convnext(network: models.ConvNeXt) -> Parts:
    """Patch embedding and the first blocks, then downsampling and blocks. Dropped: ``classifier``, with the
    norm in it.

    Each output has a new layer norm over channels, whose parameters belong to the stage; the next stage takes
    the map without it. Maps whose sides are not multiples of the next patch are padded, where torchvision
    drops the rest.
    """
    features = network.features
    bodies = [nn.Sequential(PadToMultiple(4), features[0], features[1])]
    for k in (2, 4, 6):
        norm, convolution = features[k]
        bodies.append(nn.Sequential(norm, PadToMultiple(2), convolution, features[k + 1]))
    channels = [features[0][0].out_channels, *(features[k][1].out_channels for k in (2, 4, 6))]
    stages = [NormedStage(body, LayerNorm2d(c, eps=1e-6)) for body, c in zip(bodies, channels, strict=True)]
    return list(stages), channels, STRIDES
