"""What objects share with a grid's anchors, against the matrix of all anchors and objects."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbf_ray.detectors.anchors import RotatedAnchors, level_shapes
from dbf_ray.geometry import box_iou_rotated
from dbf_ray.plan.overlaps import LEAST, best_overlaps, overlaps

STRIDES = [8, 16, 32]
THRESHOLDS = (0.4, 0.5)


def shapes_of(scales: list[float], ratios: list[float], angles: list[float]) -> torch.Tensor:
    rows = [
        (4 * scale * ratio**0.5, 4 * scale / ratio**0.5, angle)
        for ratio in ratios
        for scale in scales
        for angle in angles
    ]
    return torch.tensor(rows)


def full(boxes: torch.Tensor, scales: list[float], ratios: list[float], angles: list[float]) -> torch.Tensor:
    """The matrix by cell, [C, M, S]."""
    anchors = torch.cat(
        RotatedAnchors(STRIDES, 4.0, scales, ratios, angles)(level_shapes((160, 224), STRIDES))
    )
    count = len(scales) * len(ratios) * len(angles)
    return box_iou_rotated(anchors, boxes).view(-1, count, len(boxes)).transpose(1, 2)


@settings(max_examples=settings().max_examples // 5)
@given(seed=st.integers(0, 10**6), longest=st.sampled_from([20.0, 60.0, 250.0]))
def test_it_is_the_largest_of_the_whole_matrix(seed: int, longest: float) -> None:
    stream = torch.Generator().manual_seed(seed)
    boxes = torch.rand(40, 5, generator=stream) * torch.tensor([224.0, 160.0, longest, longest / 2, 180.0])
    boxes[:, 4] -= 90
    scales, ratios, angles = [0.7, 1.26], [1.0, 4.0], [-90.0, -45.0, 0.0, 30.0]
    grids = torch.tensor([[160.0, 224.0]]).expand(40, 2)
    shapes = shapes_of(scales, ratios, angles)
    found, counts = overlaps(boxes, grids, shapes, STRIDES, THRESHOLDS)
    everything = full(boxes, scales, ratios, angles)
    wanted = everything.amax(0)
    torch.testing.assert_close(found, torch.where(wanted >= LEAST, wanted, 0.0), atol=1e-4, rtol=0)
    for threshold, count in zip(THRESHOLDS, counts, strict=True):  # what rounding decides may fall either way
        assert (count >= (everything >= threshold + 1e-4).sum(0)).all()
        assert (count <= (everything >= threshold - 1e-4).sum(0)).all()
    assert torch.equal(best_overlaps(boxes, grids, shapes, STRIDES), found)
