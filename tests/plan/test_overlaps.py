"""The best overlap of objects with a grid's anchors, against the matrix of all anchors and objects."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbf_ray.detectors.anchors import RotatedAnchors, level_shapes
from dbf_ray.geometry import box_iou_rotated
from dbf_ray.plan.overlaps import LEAST, best_overlaps

STRIDES = [8, 16, 32]


def shapes_of(scales: list[float], ratios: list[float], angles: list[float]) -> torch.Tensor:
    rows = [
        (4 * scale * ratio**0.5, 4 * scale / ratio**0.5, angle)
        for ratio in ratios
        for scale in scales
        for angle in angles
    ]
    return torch.tensor(rows)


def full(boxes: torch.Tensor, scales: list[float], ratios: list[float], angles: list[float]) -> torch.Tensor:
    """By the matrix, [M, S]."""
    anchors = torch.cat(
        RotatedAnchors(STRIDES, 4.0, scales, ratios, angles)(level_shapes((160, 224), STRIDES))
    )
    count = len(scales) * len(ratios) * len(angles)
    iou = box_iou_rotated(anchors, boxes).view(-1, count, len(boxes)).amax(0).T
    return torch.where(iou >= LEAST, iou, 0.0)


@settings(max_examples=settings().max_examples // 5)
@given(seed=st.integers(0, 10**6), longest=st.sampled_from([20.0, 60.0, 250.0]))
def test_it_is_the_largest_of_the_whole_matrix(seed: int, longest: float) -> None:
    stream = torch.Generator().manual_seed(seed)
    boxes = torch.rand(40, 5, generator=stream) * torch.tensor([224.0, 160.0, longest, longest / 2, 180.0])
    boxes[:, 4] -= 90
    scales, ratios, angles = [0.7, 1.26], [1.0, 4.0], [-90.0, -45.0, 0.0, 30.0]
    grids = torch.tensor([[160.0, 224.0]]).expand(40, 2)
    found = best_overlaps(boxes, grids, shapes_of(scales, ratios, angles), STRIDES)
    torch.testing.assert_close(found, full(boxes, scales, ratios, angles), atol=1e-4, rtol=0)
