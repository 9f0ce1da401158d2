"""What a detector predicts relative to: anchors or points at every cell of every level of a pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dbf_ray.errors import ConfigError

Shape = tuple[int, int]


def level_shapes(padded: Shape, strides: Sequence[int]) -> list[Shape]:
    """(height, width) of each level's map for images padded to ``padded`` (height, width) pixels."""
    return [(math.ceil(padded[0] / stride), math.ceil(padded[1] / stride)) for stride in strides]


def cell_corners(shape: Shape, stride: int, device: torch.device) -> Tensor:
    """The top left corners (x, y) [H * W, 2] of a level's cells in pixels, row-major."""
    y, x = torch.meshgrid(
        torch.arange(shape[0], device=device), torch.arange(shape[1], device=device), indexing="ij"
    )
    return torch.stack([x, y], -1).reshape(-1, 2).float() * stride


def cell_centers(shape: Shape, stride: int, device: torch.device) -> Tensor:
    """The centres (x, y) [H * W, 2] of a level's cells in pixels, row-major: FCOS's points."""
    return cell_corners(shape, stride, device) + stride / 2


class RotatedAnchors(nn.Module):
    """Anchors of every size, aspect ratio and angle at every cell of every level.

    An anchor of size s and ratio r is s * sqrt(r) long and s / sqrt(r) wide and centred on its cell's corner
    (i * stride, j * stride), as in the reference (its center offset is 0). Size s is
    ``octave * stride * scale``.

    Args:
        strides: of the levels, in pixels.
        octave: base size in strides (4 in RetinaNet).
        scales: sub-octave factors (2^0, 2^(1/3), 2^(2/3) in RetinaNet).
        ratios: w / h at the given angle; r and 1 / r are the same shape at right angles. (The reference's
            ratios are h / w.)
        angles: degrees, counter-clockwise.
    """

    angles: Tensor

    def __init__(
        self,
        strides: Sequence[int],
        octave: float,
        scales: Sequence[float],
        ratios: Sequence[float],
        angles: Sequence[float],
    ) -> None:
        super().__init__()
        if not angles:
            raise ConfigError("`anchor_angles` must be a non-empty list of degrees, got []")
        self.strides = list(strides)
        self.upright = HorizontalAnchors(strides, [octave * scale for scale in scales], ratios)
        self.register_buffer("angles", torch.tensor(list(angles), dtype=torch.float32), persistent=False)

    @property
    def per_cell(self) -> int:
        """Anchors A at each cell."""
        return self.upright.per_cell * len(self.angles)

    def forward(self, shapes: Sequence[Shape]) -> list[Tensor]:
        """Anchors [H_l * W_l * A, 5] of each level, for feature maps of the given (H_l, W_l); row-major,
        anchors innermost.

        They keep the sides and angles they were asked for and are not canonical: deltas are relative to an
        anchor's own axes. Sides come from corners in float32, so that an anchor is rounded as the reference's
        is: that decides which of equally good anchors an object takes.
        """
        return [self._turned(corners) for corners in self.upright(shapes)]

    def _turned(self, corners: Tensor) -> Tensor:
        low, high = corners[:, None, :2], corners[:, None, 2:]
        count = len(self.angles)
        angles = self.angles.expand(len(corners), count)[..., None]
        return torch.cat(
            [((high + low) / 2).expand(-1, count, 2), (high - low).expand(-1, count, 2), angles], -1
        ).reshape(-1, 5)


class HorizontalAnchors(nn.Module):
    """Upright anchors (x1, y1, x2, y2) of a region proposal network, centred on their cells' corners (mmdet's
    ``AnchorGenerator``).

    Args:
        strides: of the levels, in pixels.
        scales: sizes in strides (8 in Faster R-CNN).
        ratios: w / h; an anchor of size s is s * sqrt(r) wide and s / sqrt(r) high. (The reference's ratios
            are h / w.)
    """

    base: Tensor

    def __init__(self, strides: Sequence[int], scales: Sequence[float], ratios: Sequence[float]) -> None:
        super().__init__()
        check_shapes(scales, ratios)
        self.strides = list(strides)
        size = torch.tensor(list(scales), dtype=torch.float32)
        tall = (1 / torch.tensor(list(ratios), dtype=torch.float32)).sqrt()[:, None]  # sqrt(h / w)
        half = torch.stack([size * (1 / tall), size * tall], -1).reshape(-1, 2) / 2
        self.register_buffer("base", torch.cat([-half, half], -1), persistent=False)  # [A, 4], in strides

    @property
    def per_cell(self) -> int:
        """Anchors A at each cell."""
        return len(self.base)

    def forward(self, shapes: Sequence[Shape]) -> list[Tensor]:
        """Anchors [H_l * W_l * A, 4] of each level; row-major, anchors innermost."""
        levels = []
        for shape, stride in zip(shapes, self.strides, strict=True):
            corners = cell_corners(shape, stride, self.base.device).repeat(1, 2)[:, None]
            levels.append((corners + self.base * stride).reshape(-1, 4))
        return levels


def check_shapes(scales: Sequence[float], ratios: Sequence[float]) -> None:
    """Refuse anchors without a size or with one that is not positive.

    Raises:
        ConfigError: naming the option and its value.
    """
    for key, values in (("anchor_scales", scales), ("anchor_ratios", ratios)):
        if not values or min(values) <= 0:
            raise ConfigError(f"`{key}` must be a non-empty list of positive numbers, got {list(values)}")
