"""RegNets (arXiv 2003.13678): stem and four groups of blocks."""

from __future__ import annotations

from torch import nn
from torchvision import models

from dbf_ray.detectors.backbones.parts import STRIDES, Parts


def cut_regnet(network: models.RegNet) -> Parts:
    """Stem and block1, then one block each. Dropped: ``fc``."""
    groups = list(network.trunk_output)
    stages: list[nn.Module] = [nn.Sequential(network.stem, groups[0]), *groups[1:]]
    return stages, [group[-1].f.c.out_channels for group in groups], STRIDES
