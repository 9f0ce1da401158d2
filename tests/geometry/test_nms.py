"""Suppression against a plain greedy loop over exact IoUs."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dbf_ray.errors import DataError
from dbf_ray.geometry import batched_nms_rotated, box_iou_rotated, box_iou_rotated_aligned, nms, nms_rotated
from tests.geometry.slow import clustered, exact_iou, greedy, scattered

numbers = st.tuples(
    st.floats(-60, 60),
    st.floats(-60, 60),
    st.floats(5, 100),
    st.floats(5, 100),
    st.sampled_from([-90.0, -30.0, 0.0, 10.0, 45.0]),
)
boxes_of = st.lists(numbers, min_size=1, max_size=12).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64)
)


def dense(boxes: Tensor) -> Tensor:
    """IoUs [N, N] in float32 of float64 arithmetic, without any search for pairs."""
    return torch.stack(
        [box_iou_rotated_aligned(boxes.double(), box.double().expand(len(boxes), 5)) for box in boxes]
    ).float()


@settings(max_examples=60, deadline=None)
@given(
    boxes_of,
    st.sampled_from([0.1, 0.3, 0.5, 0.8]),
    st.integers(1, 3),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_nms_equals_the_slow_greedy_and_is_idempotent(
    boxes: Tensor, threshold: float, classes: int, block: int, random: Random
) -> None:
    scores = torch.tensor([random.randint(0, 4) / 4 for _ in boxes])  # ties among them
    labels = torch.tensor([random.randrange(classes) for _ in boxes])
    iou = torch.tensor([[exact_iou(x, y) for y in boxes] for x in boxes])
    if (iou - threshold).abs().min() < 1e-6:
        return  # at the threshold rounding decides
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nms, "_FIRST_BLOCK", block)
        kept = batched_nms_rotated(boxes, scores, labels, threshold)
        assert kept.tolist() == greedy(iou, scores, labels, threshold)
        again = batched_nms_rotated(boxes[kept], scores[kept], labels[kept], threshold)
    assert again.tolist() == list(range(len(kept)))


@pytest.mark.parametrize("threshold", [0.1, 0.5])
@pytest.mark.parametrize("classes", [1, 7])
@pytest.mark.parametrize(
    "boxes",
    [scattered(900, 350, 1), clustered(900, 30, 350, 2), clustered(900, 2, 350, 3)],
    ids=["scattered", "clustered", "two objects"],
)
def test_many_boxes_keep_what_the_slow_greedy_keeps(boxes: Tensor, classes: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(4)
    scores = torch.rand(len(boxes), generator=generator)
    labels = torch.randint(classes, (len(boxes),), generator=generator) * 1000
    kept = batched_nms_rotated(boxes, scores, labels, threshold)
    assert kept.tolist() == greedy(dense(boxes), scores, labels, threshold)
    far = boxes + torch.tensor([20000.0, 20000, 0, 0, 0])
    assert batched_nms_rotated(far, scores, labels, threshold).tolist() == greedy(
        dense(far), scores, labels, threshold
    )


def test_a_chain_of_boxes_is_followed_to_its_end() -> None:
    boxes = torch.zeros(3000, 5)
    boxes[:, 0], boxes[:, 2], boxes[:, 3] = torch.arange(3000) * 5.0, 10.0, 4.0  # IoU of neighbours 1/3
    kept = nms_rotated(boxes, torch.linspace(1, 0, 3000), 0.3)
    assert kept.tolist() == list(range(0, 3000, 2))


def test_an_iou_at_the_threshold_suppresses() -> None:
    boxes = torch.tensor([[10.0, 10, 4, 4, 0], [12, 10, 4, 4, 0], [30, 30, 4, 4, 0], [30, 30, 4, 4, 0]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.7])
    assert nms_rotated(boxes, scores, 1 / 3).tolist() == [0, 2]
    assert nms_rotated(boxes, scores, 0.3334).tolist() == [0, 1, 2]
    assert nms_rotated(boxes, scores, 1.0).tolist() == [0, 1, 2]
    assert nms_rotated(boxes, scores, 0.0).tolist() == [0]
    assert nms_rotated(boxes, scores, 1.1).tolist() == [0, 1, 2, 3]


def test_labels_do_not_suppress_each_other() -> None:
    boxes = torch.tensor([[0, 0, 10, 5, 0.0]]).repeat(4, 1)
    scores, labels = torch.tensor([0.1, 0.4, 0.3, 0.2]), torch.tensor([0, 0, 1, 1])
    assert batched_nms_rotated(boxes, scores, labels, 0.5).tolist() == [1, 2]
    assert batched_nms_rotated(boxes, scores, labels, 0.0).tolist() == [1, 2]


def test_numbers_that_are_not_finite_disturb_nothing_else() -> None:
    boxes = torch.tensor(
        [
            [0, 0, 10, 5, 0.0],
            [0, 0, math.inf, 5, 0],
            [math.nan, 0, 10, 5, 0],
            [0, 0, 10, 5, 1],
            [0, 0, 0, 5, 0],
        ]
    )
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), torch.tensor([0, 0, 1, 0, 1])
    assert batched_nms_rotated(boxes, scores, labels, 0.5).tolist() == [0, 1, 2, 4]


def test_work_grows_with_what_is_kept_not_with_pairs_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    def counting(a: Tensor, b: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        nonlocal compared
        compared += len(rows)
        return original(a, b, rows, columns)

    original = nms.iou_of_pairs
    monkeypatch.setattr(nms, "iou_of_pairs", counting)
    boxes = clustered(20000, 10, 2000, 5)
    kept = nms_rotated(boxes, torch.rand(20000), 0.1)
    assert len(kept) < 60
    assert compared < 10 * len(boxes)  # there are 20 million pairs that touch


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_nothing_in_nothing_out(threshold: float) -> None:
    none = torch.zeros(0, 5)
    assert nms_rotated(none, torch.zeros(0), threshold).tolist() == []
    assert (
        batched_nms_rotated(none, torch.zeros(0), torch.zeros(0, dtype=torch.int64), threshold).dtype
        == torch.int64
    )
    assert nms_rotated(torch.tensor([[1.0, 2, 3, 4, 5]]), torch.ones(1), threshold).tolist() == [0]


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[N, 5\].*\(3, 4\)"):
        nms_rotated(torch.zeros(3, 4), torch.zeros(3), 0.5)


def test_kept_boxes_of_a_scene_overlap_less_than_the_threshold() -> None:
    boxes, scores = scattered(3000, 700, 6), torch.rand(3000)
    kept = nms_rotated(boxes, scores, 0.2)
    iou = box_iou_rotated(boxes[kept], boxes[kept]).fill_diagonal_(0)
    assert iou.max() < 0.2
    assert (scores[kept].diff() <= 0).all()
    rest = torch.ones(len(boxes), dtype=torch.bool)
    rest[kept] = False
    assert (box_iou_rotated(boxes[rest], boxes[kept]).amax(1) >= 0.2).all()
