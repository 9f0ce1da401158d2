"""Features of oriented regions on a grid of fixed size (RoIAlign, arXiv 1703.06870, turned with the box;
mmcv's ``RoIAlignRotated``).

Every bin of a region averages some sample points, and every sample is a weighted sum of its four neighbours
on the map: so a bin is a weighted sum of rows of the map, laid out as one row of channels per pixel.
``embedding_bag`` computes just that, with no tensor of samples.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dbf_ray.errors import DataError
from dbf_ray.geometry.boxes import axes


def roi_align_rotated(
    features: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int] = 7,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
) -> Tensor:
    """Averages of the features in the bins of oriented regions, in the regions' own frames; gradients go to
    the features only.

    The semantics are mmcv's with ``aligned=True, clockwise=True``: the centre of pixel (i, j) is at (i + 0.5,
    j + 0.5); a sample less than half a pixel outside of the map takes the value at its border, one further
    out counts as 0. Computed in float32 for lower precisions too.

    Args:
        features: [B, C, H, W].
        rois: [n, 6] (index of the image in the batch, cx, cy, w, h, angle): pixels of the image and degrees
            counter-clockwise.
        output_size: bins along h and along w, or one number for both.
        spatial_scale: size of the map over that of the image.
        sampling_ratio: samples of a bin along each axis; 0: one for each pixel or part of it that the bin
            spans.

    Returns:
        [n, C, height, width] in the dtype of ``features``; rows run along the regions' h, columns along their
        w.

    Raises:
        DataError: a shape is not as above.
    """
    if features.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 6:
        raise DataError(
            "features must be [B, C, H, W] and rois [n, 6] (batch index, cx, cy, w, h, angle), got "
            f"{tuple(features.shape)} and {tuple(rois.shape)}"
        )
    bins = (output_size, output_size) if isinstance(output_size, int) else output_size
    dtype = torch.promote_types(features.dtype, torch.float32)
    table = features.to(dtype).permute(0, 2, 3, 1).flatten(0, 2)  # [B * H * W, C]
    map_size = (features.shape[2], features.shape[3])
    rois = rois.detach().to(torch.promote_types(rois.dtype, torch.float32))
    image, regions = rois[:, 0].long(), torch.cat([rois[:, 1:5] * spatial_scale, rois[:, 5:]], 1)
    if sampling_ratio > 0:
        index, weight = _bags(image, regions, map_size, bins, (sampling_ratio, sampling_ratio))
        pooled = F.embedding_bag(index, table, mode="sum", per_sample_weights=weight.to(dtype))
    else:
        pooled = _adaptive(table, image, regions, map_size, bins)
    return pooled.view(len(rois), *bins, table.shape[1]).permute(0, 3, 1, 2).to(features.dtype)


def _adaptive(
    table: Tensor, image: Tensor, regions: Tensor, map_size: tuple[int, int], bins: tuple[int, int]
) -> Tensor:
    """As the fixed case, but regions differ in the number of samples: bags of unequal size, made for regions
    of one kind at a time.
    """
    counts = (
        torch.ceil(torch.stack([regions[:, 3] / bins[0], regions[:, 2] / bins[1]], 1))
        .nan_to_num(0, 0, 0)
        .clamp(min=0)
        .long()
    )
    kinds, kind = torch.unique(counts, dim=0, return_inverse=True)
    order = torch.argsort(kind, stable=True)
    made = [
        _bags(image[some], regions[some], map_size, bins, (rows, columns))
        for (rows, columns), some in zip(
            kinds.tolist(), order.split(torch.bincount(kind, minlength=len(kinds)).tolist()), strict=True
        )
    ]
    none = torch.zeros(0, dtype=torch.int64, device=table.device)
    index = torch.cat([none, *(index.flatten() for index, _ in made)])
    weight = torch.cat([none.to(table.dtype), *(weight.flatten().to(table.dtype) for _, weight in made)])
    sizes = torch.cat([none, *(none.new_full((len(index),), index.shape[1]) for index, _ in made)])
    pooled = F.embedding_bag(index, table, sizes.cumsum(0) - sizes, mode="sum", per_sample_weights=weight)
    return pooled.view(len(regions), bins[0] * bins[1], table.shape[1])[torch.argsort(order)]


def _bags(
    image: Tensor, regions: Tensor, map_size: tuple[int, int], bins: tuple[int, int], samples: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Rows of the table and their weights, both [n * bins, samples * 4], for regions [n, 5] in pixels of the
    map.
    """
    height, width = map_size
    u, v = axes(regions)
    center = regions[:, :2] - 0.5
    across = v[:, None] * (regions[:, 3:4, None] * _positions(bins[0] * samples[0], regions))  # [n, rows, 2]
    # [n, columns, 2]
    along = u[:, None] * (regions[:, 2:3, None] * _positions(bins[1] * samples[1], regions))
    x, y = (center[:, None, None] + across[:, :, None] + along[:, None]).unbind(-1)  # [n, rows, columns]
    inside = (x >= -1) & (x <= width) & (y >= -1) & (y <= height)
    x, y = torch.where(inside, x, 0).clamp(0, width - 1), torch.where(inside, y, 0).clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    share_x = torch.stack([left + 1 - x, x - left], -1)
    share_y = (
        torch.stack([top + 1 - y, y - top], -1)
        * (inside.to(x.dtype) / max(1, samples[0] * samples[1]))[..., None]
    )
    column = torch.stack([left, (left + 1).clamp(max=width - 1)], -1).long()
    row = (
        torch.stack([top, (top + 1).clamp(max=height - 1)], -1).long() + (image * height)[:, None, None, None]
    )
    index = row[..., :, None] * width + column[..., None, :]  # [n, rows, columns, 2, 2]
    weight = share_y[..., :, None] * share_x[..., None, :]
    return _by_bin(index, bins, samples), _by_bin(weight, bins, samples)


def _positions(count: int, like: Tensor) -> Tensor:
    """Middles [count, 1] of ``count`` equal parts of [-1/2, 1/2]."""
    return ((torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / max(1, count) - 0.5)[:, None]


def _by_bin(values: Tensor, bins: tuple[int, int], samples: tuple[int, int]) -> Tensor:
    """[n, rows * samples, columns * samples, 2, 2] as [n * rows * columns, samples * samples * 4]."""
    # [n, rows, samples, columns, samples, 2, 2]
    parts = values.unflatten(2, (bins[1], samples[1])).unflatten(1, (bins[0], samples[0]))
    return parts.transpose(2, 3).flatten(3).flatten(0, 2)
