"""Properties of the box conversions, overlap, suppression and coder."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon
from torch import Tensor
from torchvision.ops import box_iou

from dbf_ray.errors import DataError
from dbf_ray.geometry import (
    RotatedBoxCoder,
    batched_nms_rotated,
    box_iou_rotated,
    box_iou_rotated_aligned,
    boxes_to_corners,
    canonicalize,
    circumscribed,
    corners_to_boxes,
    nms_rotated,
)

numbers = st.tuples(st.floats(-500, 500), st.floats(-500, 500), st.floats(1, 300), st.floats(1, 300), st.floats(-400, 400))
boxes_of = st.lists(numbers, min_size=1, max_size=12).map(lambda rows: torch.tensor(rows, dtype=torch.float64))


def polygon_iou(a: Tensor, b: Tensor) -> float:
    """The slow witness: polygons in float64 by shapely."""
    p, q = (Polygon(boxes_to_corners(box[None].double()).reshape(4, 2).tolist()) for box in (a, b))
    inter = p.intersection(q).area
    return inter / (p.area + q.area - inter)


@given(boxes_of)
def test_canonical_form_covers_the_same_area(boxes: Tensor) -> None:
    result = canonicalize(boxes)
    assert (result[:, 2] >= result[:, 3]).all()
    assert ((result[:, 4] >= -90) & (result[:, 4] < 90)).all()
    assert box_iou_rotated_aligned(boxes, result).min() > 1 - 1e-6
    torch.testing.assert_close(canonicalize(result), result)


def test_angles_just_below_the_border_stay_in_range() -> None:
    boxes = torch.tensor([[0, 0, 4, 2, -90.0], [0, 0, 4, 2, 90.0], [0, 0, 4, 2, -90.00001], [0, 0, 4, 2, 89.999999], [0, 0, 2, 4, -1e-9]])
    angles = canonicalize(boxes)[:, 4]
    assert ((angles >= -90) & (angles < 90)).all()


def test_a_positive_angle_turns_counter_clockwise_as_seen() -> None:
    corners = boxes_to_corners(torch.tensor([[0.0, 0.0, 4.0, 2.0, 90.0]])).reshape(4, 2)
    # y points down: the top left corner (-2, -1) goes to the bottom left
    torch.testing.assert_close(corners[0], torch.tensor([-1.0, 2.0]), atol=1e-5, rtol=0)


@given(boxes_of)
def test_corners_round_trip(boxes: Tensor) -> None:
    back = corners_to_boxes(boxes_to_corners(boxes))
    assert box_iou_rotated_aligned(back, boxes).min() > 1 - 1e-5


@given(boxes_of, st.permutations([0, 1, 2, 3]))
def test_corner_order_does_not_matter(boxes: Tensor, order: list[int]) -> None:
    corners = boxes_to_corners(boxes).reshape(-1, 4, 2)[:, order].reshape(-1, 8)
    assert box_iou_rotated_aligned(corners_to_boxes(corners), boxes).min() > 1 - 1e-5


@settings(max_examples=60, deadline=None)
@given(boxes_of, boxes_of)
def test_iou_equals_polygon_clipping(a: Tensor, b: Tensor) -> None:
    expected = torch.tensor([[polygon_iou(x, y) for y in b] for x in a])
    aligned = torch.stack([box_iou_rotated_aligned(a, y.expand_as(a)) for y in b], 1)
    torch.testing.assert_close(aligned, expected.double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(box_iou_rotated(a, b), expected.float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(box_iou_rotated(b, a).T, box_iou_rotated(a, b))


@given(boxes_of, st.floats(-180, 180), st.floats(-1000, 1000))
def test_iou_does_not_change_when_both_boxes_move(boxes: Tensor, turn: float, shift: float) -> None:
    other = boxes + torch.tensor([3.0, -2.0, 1.0, 4.0, 17.0])
    angle = math.radians(turn)
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)

    def moved(b: Tensor) -> Tensor:
        return torch.cat([b[:, :2] @ rotation + shift, b[:, 2:4], b[:, 4:] + turn], -1)

    torch.testing.assert_close(
        box_iou_rotated_aligned(moved(boxes), moved(other)), box_iou_rotated_aligned(boxes, other), atol=1e-6, rtol=0
    )


def test_iou_of_unrotated_boxes_is_the_horizontal_one() -> None:
    boxes = torch.rand(40, 5) * 50 + 1
    boxes[:, 4] = 0
    torch.testing.assert_close(box_iou_rotated(boxes, boxes), box_iou(circumscribed(boxes), circumscribed(boxes)), atol=1e-4, rtol=0)


def test_iou_gradients_are_finite_and_right() -> None:
    a = torch.tensor(
        [[0, 0, 10, 4, 0], [0, 0, 10, 4, 30], [100, 0, 10, 4, 0], [5, 2, 10, 4, 0], [2e4, 2e4, 60, 0.5, 44]], dtype=torch.float64
    )
    b = torch.tensor(
        [[0, 0, 10, 4, 0], [1, 1, 9, 5, 10], [0, 0, 10, 4, 0], [15, 2, 10, 4, 0], [2e4, 2e4, 50, 1.0, 46]], dtype=torch.float64
    )
    a.requires_grad_()
    box_iou_rotated_aligned(a, b).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert torch.autograd.gradcheck(lambda x: box_iou_rotated_aligned(x, b[1:2]), a[1:2].detach().requires_grad_())


def greedy(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        if all(polygon_iou(boxes[i], boxes[k]) < threshold for k in kept):
            kept.append(i)
    return kept


@settings(max_examples=30, deadline=None)
@given(boxes_of, st.sampled_from([0.1, 0.3, 0.5]))
def test_nms_equals_the_slow_greedy_and_is_idempotent(boxes: Tensor, threshold: float) -> None:
    boxes = boxes * torch.tensor([0.2, 0.2, 1, 1, 1])
    scores = torch.arange(len(boxes), 0, -1).float()
    overlaps = [polygon_iou(x, y) for x in boxes for y in boxes]
    if any(abs(o - threshold) < 1e-4 for o in overlaps):
        return  # at the threshold rounding decides
    kept = nms_rotated(boxes, scores, threshold)
    assert kept.tolist() == greedy(boxes, scores, threshold)
    again = nms_rotated(boxes[kept], scores[kept], threshold)
    assert again.tolist() == list(range(len(kept)))


def test_labels_do_not_suppress_each_other() -> None:
    boxes = torch.tensor([[0, 0, 10, 5, 0.0]]).repeat(4, 1)
    kept = batched_nms_rotated(boxes, torch.tensor([0.1, 0.4, 0.3, 0.2]), torch.tensor([0, 0, 1, 1]), 0.5)
    assert kept.tolist() == [1, 2]


@pytest.mark.parametrize("n", [0, 1])
def test_empty_inputs(n: int) -> None:
    boxes, none = torch.rand(n, 5), torch.zeros(0, 5)
    assert box_iou_rotated(boxes, none).shape == (n, 0)
    assert box_iou_rotated(none, boxes).shape == (0, n)
    assert box_iou_rotated_aligned(none, none).shape == (0,)
    assert nms_rotated(none, torch.zeros(0), 0.5).shape == (0,)
    assert corners_to_boxes(torch.zeros(0, 8)).shape == (0, 5)
    assert boxes_to_corners(none).shape == (0, 8)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[N, 5\].*\(3, 4\)"):
        box_iou_rotated(torch.zeros(3, 4), torch.zeros(2, 5))
    with pytest.raises(DataError, match="8 numbers"):
        corners_to_boxes(torch.zeros(3, 6))


@given(boxes_of, boxes_of)
def test_coder_round_trip(anchors: Tensor, boxes: Tensor) -> None:
    n = min(len(anchors), len(boxes))
    anchors = torch.cat([anchors[:n, :2] * 0.1, anchors[:n, 2:4].clamp(min=8), anchors[:n, 4:]], -1)
    boxes = boxes[:n]
    coder = RotatedBoxCoder(stds=(0.1, 0.1, 0.2, 0.2, 0.1), max_ratio=1000)
    assert box_iou_rotated_aligned(coder.decode(anchors, coder.encode(anchors, boxes)), boxes).min() > 1 - 1e-5
