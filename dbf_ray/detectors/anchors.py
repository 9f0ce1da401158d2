"""Oriented anchors on a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dbf_ray.errors import ConfigError
from dbf_ray.geometry import canonicalize


class RotatedAnchors(nn.Module):
    """Anchors of every size, aspect ratio and angle at every cell of every level.

    An anchor of size s and ratio r is s * sqrt(r) long and s / sqrt(r) wide and centred on its cell's corner (i * stride, j * stride), as in
    the reference (its center offset is 0). Size s is ``octave * stride * scale``.

    Args:
        strides: of the levels, in pixels.
        octave: base size in strides (4 in RetinaNet).
        scales: sub-octave factors (2^0, 2^(1/3), 2^(2/3) in RetinaNet).
        ratios: w / h at the given angle; r and 1 / r are the same shape at right angles.
        angles: degrees, counter-clockwise.
    """

    base: Tensor

    def __init__(
        self, strides: Sequence[int], octave: float, scales: Sequence[float], ratios: Sequence[float], angles: Sequence[float]
    ) -> None:
        super().__init__()
        for key, values in (("anchor_scales", scales), ("anchor_ratios", ratios)):
            if not values or min(values) <= 0:
                raise ConfigError(f"detector.{key} must be a non-empty list of positive numbers, got {list(values)}")
        if not angles:
            raise ConfigError("detector.anchor_angles must be a non-empty list of degrees, got []")
        self.strides = list(strides)
        base = [
            (octave * scale * ratio**0.5, octave * scale / ratio**0.5, angle) for ratio in ratios for scale in scales for angle in angles
        ]
        self.register_buffer("base", torch.tensor(base, dtype=torch.float32), persistent=False)  # [A, 3]: w, h in strides, angle

    @property
    def per_cell(self) -> int:
        """Anchors A at each cell."""
        return len(self.base)

    def forward(self, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Canonical anchors [H_l * W_l * A, 5] of each level, for feature maps of the given (H_l, W_l); row-major, anchors innermost."""
        levels = []
        for (height, width), stride in zip(shapes, self.strides, strict=True):
            y, x = torch.meshgrid(
                torch.arange(height, device=self.base.device), torch.arange(width, device=self.base.device), indexing="ij"
            )
            centers = torch.stack([x, y], -1).reshape(-1, 1, 2).float() * stride
            sides = torch.cat([self.base[:, :2] * stride, self.base[:, 2:]], -1)
            cells = [centers.expand(-1, self.per_cell, 2), sides.expand(centers.shape[0], -1, 3)]
            levels.append(canonicalize(torch.cat(cells, -1).reshape(-1, 5)))
        return levels
