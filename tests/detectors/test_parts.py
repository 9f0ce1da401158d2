"""The parts detectors are made of: anchors, points and their assignment, sampling, the choice of levels,
post-processing.
"""

from __future__ import annotations

import math
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torchvision.ops import batched_nms

from dbf_ray.detectors import assigners
from dbf_ray.detectors.anchors import HorizontalAnchors, RotatedAnchors, cell_centers, level_shapes
from dbf_ray.detectors.assigners import BACKGROUND, IGNORED, assign_by_iou, assign_max_iou, assign_points
from dbf_ray.detectors.fcos import centerness_of
from dbf_ray.detectors.fpn import FPN
from dbf_ray.detectors.postprocess import best_candidates, select_detections
from dbf_ray.detectors.regions import HorizontalRegions, OrientedRegions
from dbf_ray.detectors.retinanet import OCTAVE_SCALES
from dbf_ray.detectors.roi_head import pool_regions
from dbf_ray.detectors.samplers import sample
from dbf_ray.geometry import box_iou_rotated_aligned, canonicalize
from tests.detectors.formula_weights import figures

STRIDES = [8, 16, 32, 64, 128]
RANGES = [(-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, math.inf)]


def test_anchors_are_the_reference_s_to_the_bit(shared: Path) -> None:
    facts = figures(shared, "model_facts.json")
    rotated = RotatedAnchors(STRIDES, 4.0, OCTAVE_SCALES, (1.0, 2.0, 0.5), (0.0,))
    upright = HorizontalAnchors([4, 8, 16, 32, 64], (8.0,), (2.0, 1.0, 0.5))
    for anchors, model in ((rotated, "rotated_retinanet__r50"), (upright, "oriented_rcnn__r50")):
        levels = anchors(level_shapes((512, 512), anchors.strides))
        assert [len(level) for level in levels] == facts[model]["priors_per_level_512"]
        for level, first in zip(levels, facts[model]["first_priors_per_level"], strict=True):
            assert torch.equal(level[: len(first)], torch.tensor(first))


def test_points_are_the_reference_s(shared: Path) -> None:
    facts = figures(shared, "model_facts.json")["rotated_fcos__r50"]
    for shape, stride, first in zip(
        level_shapes((512, 512), STRIDES), STRIDES, facts["first_priors_per_level"], strict=True
    ):
        assert torch.equal(
            cell_centers(shape, stride, torch.device("cpu"))[: len(first)], torch.tensor(first)
        )


def test_angles_and_ratios_of_anchors() -> None:
    (level,) = RotatedAnchors([16], 4.0, (0.5,), (4.0,), (0.0, 45.0))([(1, 2)])
    assert level.tolist() == [[0, 0, 64, 16, 0], [0, 0, 64, 16, 45], [16, 0, 64, 16, 0], [16, 0, 64, 16, 45]]


def slow_points(shapes: list[tuple[int, int]], boxes: list[list[float]], radius: float) -> list[int]:
    """FCOS's rule, one point and one object at a time."""
    result = []
    for (height, width), stride, (low, high) in zip(shapes, STRIDES, RANGES, strict=True):
        for row in range(height):
            for column in range(width):
                best, best_area = BACKGROUND, math.inf
                for number, (cx, cy, w, h, angle) in enumerate(boxes):
                    a = math.radians(angle)
                    dx, dy = (column + 0.5) * stride - cx, (row + 0.5) * stride - cy
                    along, across = dx * math.cos(a) - dy * math.sin(a), dx * math.sin(a) + dy * math.cos(a)
                    sides = (w / 2 + along, w / 2 - along, h / 2 + across, h / 2 - across)
                    stands = (
                        min(sides) > 0
                        and low <= max(sides) <= high
                        and max(abs(along), abs(across)) < radius * stride
                    )
                    if stands and w * h < best_area:
                        best, best_area = number, w * h
                result.append(best)
    return result


box = st.tuples(
    st.floats(-20, 280), st.floats(-20, 220), st.floats(3, 400), st.floats(3, 400), st.floats(-90, 89.9)
)


@settings(max_examples=40, deadline=None)
@given(st.lists(box, max_size=6), st.sampled_from([0.7, 1.5, 3.0]))
def test_points_are_assigned_as_by_the_slow_rule(boxes: list[tuple[float, ...]], radius: float) -> None:
    shapes = level_shapes((192, 256), STRIDES)
    objects = canonicalize(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 5))
    found = assign_points(shapes, STRIDES, objects, RANGES, radius)
    assert found.tolist() == slow_points(shapes, objects.tolist(), radius)


def test_of_equal_objects_the_first_takes_the_points() -> None:
    same = torch.tensor([[100.0, 100, 60, 40, 20]] * 3)
    found = assign_points(level_shapes((256, 256), STRIDES), STRIDES, same, RANGES, 1.5)
    assert set(found.tolist()) == {BACKGROUND, 0}


def test_centerness() -> None:
    distances = torch.tensor([[4.0, 3, 4, 3], [1, 2, 4, 8], [0, 1, 1, 1]])
    torch.testing.assert_close(centerness_of(distances), torch.tensor([1.0, math.sqrt(1 / 4 * 2 / 8), 0.0]))


def test_assignment_by_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    iou = torch.tensor([[0.8, 0.1], [0.35, 0.0], [0.1, 0.2], [0.45, 0.45], [0.0, 0.0]])

    def assign(matrix: Tensor, low_quality: float | None) -> list[int]:
        columns = torch.arange(matrix.shape[1])
        return assign_by_iou(
            lambda some: matrix[:, some], len(matrix), columns, 0.7, 0.3, low_quality
        ).tolist()

    assert assign(iou, 0.3) == [0, IGNORED, BACKGROUND, 1, BACKGROUND]
    assert assign(iou, None) == [0, IGNORED, BACKGROUND, IGNORED, BACKGROUND]
    assert assign(iou[:, :0], 0.3) == [BACKGROUND] * 5
    assert assign(iou[:0], 0.3) == []
    many = torch.rand(40, 9)
    whole = assign(many, 0.0)
    monkeypatch.setattr(assigners, "_PAIRS_AT_ONCE", 80)  # two objects at a time
    assert assign(many, 0.0) == whole


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([IGNORED, BACKGROUND, 0, 1, 2]), max_size=60),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_sampling_takes_its_quota(assigned: list[int], count: int, share: float) -> None:
    tensor = torch.tensor(assigned, dtype=torch.int64)
    positive, negative = sample(tensor, count, share, torch.Generator().manual_seed(3))
    positives, negatives = sum(a >= 0 for a in assigned), sum(a == BACKGROUND for a in assigned)
    assert len(positive) == min(positives, int(count * share))
    assert len(negative) == min(negatives, count - len(positive))
    assert (tensor[positive] >= 0).all()
    assert (tensor[negative] == BACKGROUND).all()
    assert len({*positive.tolist(), *negative.tolist()}) == len(positive) + len(negative)


def test_sampling_reaches_every_index_and_can_take_all() -> None:
    assigned = torch.tensor([0] * 10 + [BACKGROUND] * 10)
    seen = set()
    for seed in range(60):
        positive, negative = sample(assigned, 4, 0.5, torch.Generator().manual_seed(seed))
        seen |= {*positive.tolist(), *negative.tolist()}
    assert seen == set(range(20))
    positive, negative = sample(assigned, None, 0.1, torch.Generator())
    assert (positive.tolist(), negative.tolist()) == (list(range(10)), list(range(10, 20)))


@pytest.mark.parametrize(("kind", "levels"), [("on_input", 2), ("on_output", 2), ("pool", 1)])
def test_extra_levels_of_the_pyramid(kind: str, levels: int) -> None:
    pyramid = FPN([4, 8, 16], 8, levels, kind)  # type: ignore[arg-type]
    maps = [torch.randn(1, channels, size, size) for channels, size in ((4, 16), (8, 8), (16, 4))]
    out = pyramid(maps)
    assert [x.shape[-1] for x in out] == [16, 8, 4, 2, 1][: 3 + levels]
    if kind == "pool":
        assert torch.equal(out[3], out[2][..., ::2, ::2])
    elif kind == "on_input":
        torch.testing.assert_close(out[3], pyramid.extra[0](maps[2]))
        torch.testing.assert_close(out[4], pyramid.extra[1](out[3]))
    else:
        torch.testing.assert_close(out[3], pyramid.extra[0](out[2]))
        torch.testing.assert_close(out[4], pyramid.extra[1](out[3].relu()))


@pytest.mark.parametrize("kind", [HorizontalRegions, OrientedRegions])
def test_regions_are_pooled_from_the_level_of_their_scale(kind: type, shared: Path) -> None:
    mapping = figures(shared, "model_facts.json")["oriented_rcnn__r50"]["level_mapping"]
    regions, strides = kind(), [4, 8, 16, 32]
    levels = [
        torch.full((2, 1, 1024 // stride, 1024 // stride), float(number))
        for number, stride in enumerate(strides)
    ]
    sides = torch.tensor([float(side) for side in mapping])
    center = torch.full((len(sides), 2), 512.0)
    if kind is HorizontalRegions:
        boxes = torch.cat([center - sides[:, None] / 2, center + sides[:, None] / 2], -1)
    else:
        boxes = torch.cat([center, sides[:, None], sides[:, None], torch.zeros(len(sides), 1)], -1)
    image = torch.arange(len(sides)) % 2
    pooled = pool_regions(regions, levels, boxes, image, strides, 7)
    assert pooled.shape == (len(sides), 1, 7, 7)
    assert pooled.amax((1, 2, 3)).round().tolist() == [float(level) for level in mapping.values()]
    assert pool_regions(regions, levels, boxes[:0], image[:0], strides, 7).shape == (0, 1, 7, 7)


def scored(*rows: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    table = torch.tensor(rows)
    return table[:, :5], table[:, 5:]


def test_detections_are_above_the_threshold_and_suppressed_within_their_class() -> None:
    boxes, scores = scored(
        (50, 50, 40, 20, 10, 0.9, 0.3),
        (51, 50, 40, 20, 10, 0.8, 0.6),
        (50, 50, 40, 20, 12, 0.2, 0.05),
        (90, 90, 9, 5, 0, 0.1, 0.04),
    )
    found = select_detections(boxes, scores, 0.05, 0.1, 100)
    assert found["labels"].tolist() == [0, 1, 0]
    assert found["scores"].tolist() == pytest.approx([0.9, 0.6, 0.1])
    assert torch.equal(found["boxes"], boxes[[0, 1, 3]])
    assert select_detections(boxes, scores, 0.05, 0.1, 1)["labels"].tolist() == [0]
    factors = torch.tensor([0.1, 1.0, 1.0, 1.0])
    assert select_detections(boxes, scores, 0.05, 0.1, 100, factors)["scores"].tolist() == pytest.approx(
        [0.8, 0.6, 0.1]
    )
    nothing = select_detections(boxes, scores, 0.95, 0.1, 100)
    assert [len(value) for value in nothing.values()] == [0, 0, 0]


def test_best_candidates() -> None:
    ranking = torch.tensor([0.1, 0.9, 0.5])
    assert best_candidates(ranking, 2).tolist() == [1, 2]
    assert best_candidates(ranking, 3).tolist() == [0, 1, 2]


def test_of_anchors_that_overlap_alike_some_are_taken_by_the_kernel_s_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many anchors hold this object wholly and overlap it equally well: without torchvision's kernel all are
    taken, with it some of them.
    """
    strides = [8, 16, 32, 64, 128]
    anchors = torch.cat(
        RotatedAnchors(strides, 4.0, OCTAVE_SCALES, (1.0, 2.0, 0.5), (0.0,))(
            level_shapes((256, 256), strides)
        )
    )
    objects = torch.tensor([[100.0, 30, 12, 6, 11.46]])
    some = torch.nonzero(assign_max_iou(anchors, objects) == 0).squeeze(-1)
    monkeypatch.setattr(assigners, "_KERNEL", False)
    every = torch.nonzero(assign_max_iou(anchors, objects) == 0).squeeze(-1)
    exact = box_iou_rotated_aligned(anchors.double(), objects.double().expand(len(anchors), 5))
    assert (exact[every] >= exact.max() * (1 - 1e-6)).all()
    assert 0 < len(some) < len(every)
    assert set(some.tolist()) < set(every.tolist())


def test_upright_pooling_and_suppression_equal_the_reference(shared: Path) -> None:
    data = figures(shared, "roi_ops_and_assignment.json")
    rois = torch.tensor(data["rois_b_x1y1x2y2"])
    pooled = HorizontalRegions().pool(
        torch.tensor(data["features"]), rois[:, 1:], rois[:, 0].long(), round(1 / data["spatial_scale"]), 7
    )
    torch.testing.assert_close(pooled, torch.tensor(data["roi_align_s0_aligned"]), atol=1e-5, rtol=1e-4)
    boxes, scores = torch.tensor(data["nms"]["boxes"]), torch.tensor(data["nms"]["scores"])
    kept = batched_nms(boxes, scores, torch.zeros(len(boxes)), data["nms"]["thr"])
    assert kept.tolist() == data["nms"]["keep"]
