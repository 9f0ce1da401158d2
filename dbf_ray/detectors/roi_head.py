"""The second stage: features pooled from regions, two fully connected layers, a class and a box for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dbf_ray.detectors.regions import Regions

FINEST_SCALE = 56.0  # regions below twice this are pooled from the finest level


class RoIHead(nn.Module):
    """Two shared layers, then class logits and class-agnostic deltas (MMRotate's
    ``RotatedShared2FCBBoxHead``).

    Args:
        channels: of the pooled features.
        fc_channels: of the two layers.
        num_classes: C; class C is background.
        size: side of the pooled features.
    """

    def __init__(self, channels: int, fc_channels: int, num_classes: int, size: int = 7) -> None:
        super().__init__()
        self.size = size
        self.shared = nn.ModuleList(
            [nn.Linear(channels * size * size, fc_channels), nn.Linear(fc_channels, fc_channels)]
        )
        self.classification = nn.Linear(fc_channels, num_classes + 1)
        self.regression = nn.Linear(fc_channels, 5)
        for layer in self.shared:
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
        nn.init.normal_(self.classification.weight, std=0.01)
        nn.init.normal_(self.regression.weight, std=0.001)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.constant_(module.bias, 0.0)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [n, C + 1] and deltas [n, 5] of pooled features [n, channels, size, size]."""
        x = pooled.flatten(1)
        for layer in self.shared:
            x = layer(x).relu()
        return self.classification(x), self.regression(x)


def pool_regions(
    regions: Regions,
    levels: Sequence[Tensor],
    boxes: Tensor,
    image: Tensor,
    strides: Sequence[int],
    size: int,
) -> Tensor:
    """Features [n, C, size, size] of regions, each pooled from the level that fits its scale (FPN, arXiv
    1612.03144, eq. 1).

    Args:
        regions: what a region is.
        levels: the pyramid's maps [B, C, H_l, W_l], fine to coarse; only as many as there are strides are
            used.
        boxes: the regions [n, 4 or 5].
        image: int64 [n], which image each is on.
        strides: in pixels.
        size: side of the pooled features.
    """
    level_of = (
        torch.floor(torch.log2(regions.scale(boxes) / FINEST_SCALE + 1e-6)).clamp(0, len(strides) - 1).long()
    )
    pooled, places = [], []
    for number, (level, stride) in enumerate(zip(levels, strides, strict=False)):
        members = torch.nonzero(level_of == number).squeeze(-1)
        pooled.append(regions.pool(level, boxes[members], image[members], stride, size))
        places.append(members)
    return torch.cat(pooled)[torch.argsort(torch.cat(places))]
