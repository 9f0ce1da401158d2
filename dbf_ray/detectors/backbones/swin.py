"""Swin transformers (arXiv 2103.14030) with a layer norm on each output, as detectors use them."""

from __future__ import annotations

from torch import nn
from torchvision import models
from torchvision.ops import Permute

from dbf_ray.detectors.backbones.parts import STRIDES, NormedStage, PadToMultiple, Parts


def cut_swin(network: models.SwinTransformer) -> Parts:
    """Patch embedding and the first blocks, then merging and blocks. Dropped: ``norm`` and ``head``.

    As in MMDetection's Swin each output has a new layer norm; its parameters belong to the stage. The next
    stage takes the map without it. Inside, maps are [B, H, W, C]; outputs are [B, C, H, W], in channels-last
    memory. torchvision does not shift windows on a map that fits into one, MMDetection does: the last stage
    differs from it for images up to 224 px.
    """
    features = network.features
    bodies: list[nn.Module] = [nn.Sequential(PadToMultiple(4), features[0], features[1])]
    bodies += [nn.Sequential(features[k], features[k + 1]) for k in (2, 4, 6)]
    channels = [features[k][-1].norm2.normalized_shape[0] for k in (1, 3, 5, 7)]
    norms = [nn.Sequential(nn.LayerNorm(c), Permute([0, 3, 1, 2])) for c in channels]
    return [NormedStage(body, norm) for body, norm in zip(bodies, norms, strict=True)], channels, STRIDES
