"""Properties of the box conversions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dbf_ray.errors import DataError
from dbf_ray.geometry import (
    box_iou_rotated_aligned,
    boxes_to_corners,
    canonicalize,
    circumscribed,
    corners_to_boxes,
)
from tests.geometry.slow import scattered

numbers = st.tuples(
    st.floats(-500, 500), st.floats(-500, 500), st.floats(1, 300), st.floats(1, 300), st.floats(-400, 400)
)
boxes_of = st.lists(numbers, min_size=1, max_size=12).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64)
)


@given(boxes_of)
def test_canonical_form_covers_the_same_area(boxes: Tensor) -> None:
    result = canonicalize(boxes)
    assert (result[:, 2] >= result[:, 3]).all()
    assert ((result[:, 4] >= -90) & (result[:, 4] < 90)).all()
    assert box_iou_rotated_aligned(boxes, result).min() > 1 - 1e-6
    torch.testing.assert_close(canonicalize(result), result)


def test_angles_just_below_the_border_stay_in_range() -> None:
    boxes = torch.tensor(
        [
            [0, 0, 4, 2, -90.0],
            [0, 0, 4, 2, 90.0],
            [0, 0, 4, 2, -90.00001],
            [0, 0, 4, 2, 89.999999],
            [0, 0, 2, 4, -1e-9],
        ]
    )
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


def test_circumscribed_boxes_are_the_extremes_of_the_corners() -> None:
    boxes = scattered(200, 100, 1)
    corners = boxes_to_corners(boxes).reshape(-1, 4, 2)
    torch.testing.assert_close(
        circumscribed(boxes), torch.cat([corners.amin(1), corners.amax(1)], 1), atol=1e-4, rtol=0
    )


def test_empty_inputs() -> None:
    assert corners_to_boxes(torch.zeros(0, 8)).shape == (0, 5)
    assert boxes_to_corners(torch.zeros(0, 5)).shape == (0, 8)
    assert canonicalize(torch.zeros(0, 5)).shape == (0, 5)
    assert circumscribed(torch.zeros(0, 5)).shape == (0, 4)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="8 numbers"):
        corners_to_boxes(torch.zeros(3, 6))
