"""Overlap of oriented boxes against polygons, closed forms, invariances and differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from dbf_ray.errors import DataError
from dbf_ray.geometry import (
    box_iou_rotated,
    box_iou_rotated_aligned,
    circumscribed,
    overlapping_pairs,
    pairs,
    pieces,
)
from tests.geometry.slow import exact_iou, polygon_iou, scattered

angles = st.one_of(
    st.floats(-400, 400),
    st.sampled_from([-90, -45, 0, 45, 90, 180]),
    st.sampled_from([-90, 0, 45, 90]).map(lambda a: a + 1e-6),
)
sides = st.one_of(st.floats(1, 300), st.floats(0.05, 2), st.floats(1000, 20000))
one_box = st.tuples(st.floats(-500, 500), st.floats(-500, 500), sides, sides, angles).map(
    lambda row: torch.tensor(row, dtype=torch.float64)
)
boxes_of = st.lists(one_box, min_size=1, max_size=8).map(torch.stack)
shares = st.sampled_from([-1.0, -0.5, -0.3, 0.0, 0.3, 0.5, 1.0])


def place(box: Tensor, along: float, across: float) -> Tensor:
    """The point of a box at shares of its half sides from its centre."""
    angle = math.radians(float(box[4]))
    x, y = along * box[2] / 2, across * box[3] / 2
    return torch.stack(
        [
            box[0] + x * math.cos(angle) + y * math.sin(angle),
            box[1] - x * math.sin(angle) + y * math.cos(angle),
        ]
    )


NO_TURN, TINY_TURNS, TURNS = [0.0, 90.0], [1e-7, -1e-5, 1e-3, 89.999], [0.02, 30.0, 45.0]  # degrees


@st.composite
def related(draw: st.DrawFn, turns: list[float]) -> tuple[Tensor, Tensor]:
    """Two boxes of which a corner, middle or edge of one lies on one of the other; equal, nested and nearly
    equal ones among them.
    """
    a = draw(one_box)
    turn = draw(st.sampled_from(turns))
    scale = draw(st.sampled_from([(1.0, 1.0), (0.5, 1.0), (0.5, 0.5), (1.0, 2.0), (0.9, 1.1)]))
    b = torch.stack([a[0], a[1], a[2] * scale[0], a[3] * scale[1], a[4] + turn])
    spot, own = place(a, draw(shares), draw(shares)), place(b, draw(shares), draw(shares))
    b[:2] += draw(st.sampled_from([0.0, 1.0])) * (spot - own)
    if draw(st.booleans()):
        b = torch.stack([b[0], b[1], b[3], b[2], b[4] + 90])
    return a, b


def rotated(boxes: Tensor, turn: float, shift: float) -> Tensor:
    """Boxes turned about the origin, then moved."""
    angle = math.radians(turn)
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )
    return torch.cat([boxes[:, :2] @ rotation + shift, boxes[:, 2:4], boxes[:, 4:] + turn], -1)


@settings(max_examples=60, deadline=None)
@given(boxes_of, boxes_of)
def test_iou_equals_polygon_clipping(a: Tensor, b: Tensor) -> None:
    expected = torch.tensor([[exact_iou(x, y) for y in b] for x in a], dtype=torch.float64)
    aligned = torch.stack([box_iou_rotated_aligned(a, y.expand_as(a)) for y in b], 1)
    torch.testing.assert_close(aligned, expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(box_iou_rotated(a, b).double(), expected, atol=2e-7, rtol=0)


def test_iou_equals_another_librarys_polygons() -> None:
    a, b = scattered(40, 120, 8, 2, 200), scattered(40, 120, 9, 2, 200)
    expected = torch.tensor([[polygon_iou(x, y) for y in b] for x in a], dtype=torch.float64)
    assert (expected > 0).float().mean() > 0.2
    torch.testing.assert_close(box_iou_rotated(a, b).double(), expected, atol=1e-6, rtol=0)


@settings(max_examples=300, deadline=None)
@given(related(NO_TURN + TINY_TURNS + TURNS))
def test_iou_of_boxes_whose_corners_and_edges_meet_equals_polygon_clipping(
    pair: tuple[Tensor, Tensor],
) -> None:
    a, b = pair
    assert float(box_iou_rotated_aligned(a[None], b[None])) == pytest.approx(exact_iou(a, b), abs=1e-6)
    narrow = a.float(), b.float()
    assert float(box_iou_rotated(narrow[0][None], narrow[1][None])) == pytest.approx(
        exact_iou(*narrow), abs=1e-6
    )


# Pairs at which torchvision 0.29's kernel is wrong by .1 to .7: corners that coincide, a corner on an edge, a
# tiny turn, an anchor.
@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        (
            [36.49096, 18.2655, 22.14362, 10.59413, -87.42478],
            [35.29303, 17.02958, 20.58513, 11.17628, 87.72571],
            0.730378,
        ),
        (
            [0.12124, 16.53744, 35.22466, 22.43028, 15.02293],
            [5.15679, 0.87075, 16.38621, 52.72135, -27.13002],
            0.292433,
        ),
        (
            [6.93263, 23.69069, 23.14487, 25.07326, -31.29447],
            [6.93263, 23.69069, 23.14487, 25.07326, -31.294468],
            1.0,
        ),
        ([224.0, 688.0, 35.9188, 71.8376, 0.0], [196.1638, 683.7345, 64.9331, 30.7460, 60.9440], 0.106371),
    ],
)
@pytest.mark.parametrize("at", [0.0, 20000.0])
def test_pairs_that_are_hard_in_low_precision(a: list[float], b: list[float], iou: float, at: float) -> None:
    first, second = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    first[:, :2] += at
    second[:, :2] += at
    assert float(box_iou_rotated(first, second)) == pytest.approx(iou, abs=2e-5)
    assert float(box_iou_rotated(first.float(), second.float())) == pytest.approx(
        exact_iou(first[0].float(), second[0].float()), abs=1e-6
    )


@given(boxes_of, boxes_of)
def test_iou_is_symmetric(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(box_iou_rotated(b, a).T, box_iou_rotated(a, b), atol=1e-7, rtol=0)


@given(boxes_of, st.floats(-180, 180), st.floats(-20000, 20000))
def test_iou_does_not_change_when_both_boxes_move(boxes: Tensor, turn: float, shift: float) -> None:
    other = boxes + torch.tensor([3.0, -2.0, 1.0, 4.0, 17.0])
    moved = box_iou_rotated_aligned(rotated(boxes, turn, shift), rotated(other, turn, shift))
    torch.testing.assert_close(moved, box_iou_rotated_aligned(boxes, other), atol=1e-7, rtol=0)


@given(one_box, st.floats(0.01, 1), st.floats(0.01, 1), st.floats(-1, 1), st.floats(-1, 1), st.floats(0.3, 1))
def test_a_nested_box_has_the_ratio_of_the_areas(
    box: Tensor, w: float, h: float, along: float, across: float, smaller: float
) -> None:
    inner = torch.cat([place(box, along * (1 - w), across * (1 - h)), box[2:3] * w, box[3:4] * h, box[4:]])
    iou = float(box_iou_rotated_aligned(box[None], inner[None]))
    assert iou == pytest.approx(w * h, abs=1e-7)
    shrunk = torch.cat([inner[:2], inner[2:4] * smaller, inner[4:]])
    assert float(box_iou_rotated_aligned(box[None], shrunk[None])) <= iou + 1e-9


@pytest.mark.parametrize("angle", [0.0, 90.0, -90.0, 180.0])
def test_iou_of_upright_boxes_is_the_horizontal_one(angle: float) -> None:
    boxes = scattered(300, 300, seed=1).double()
    boxes[:, 4] = angle
    upright = circumscribed(boxes)
    torch.testing.assert_close(
        box_iou_rotated(boxes, boxes), box_iou(upright, upright).float(), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("at", "largest"), [(0.0, 60.0), (20000.0, 60.0), (0.0, 2000.0)])
def test_no_pair_of_many_is_lost(at: float, largest: float) -> None:
    a, b = scattered(3000, 500, 2, 1, largest), scattered(40, 500, 3, 1, largest)
    a[:, :2] += at
    b[:, :2] += at
    expected = torch.stack([box_iou_rotated_aligned(a, box.expand_as(a)) for box in b], 1)
    torch.testing.assert_close(box_iou_rotated(a, b), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(box_iou_rotated(b, a), expected.T, atol=1e-6, rtol=0)
    rows, columns, iou = overlapping_pairs(a, b)
    sparse = torch.zeros_like(expected)
    sparse[rows, columns] = iou
    assert torch.equal(sparse, box_iou_rotated(a, b))
    assert len(torch.unique(rows * len(b) + columns)) == len(rows)
    assert (iou > 0).all()


@settings(max_examples=30, deadline=None)
@given(boxes_of, boxes_of, st.integers(10, 400))
def test_pieces_and_tiles_change_nothing(a: Tensor, b: Tensor, numbers: int) -> None:
    a = torch.cat([a, a[:, [1, 0, 3, 2, 4]], a[:1]] * 4)
    whole = box_iou_rotated(a, b)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_DIRECT", 0)
        patch.setattr(pieces, "_NUMBERS", numbers)
        torch.testing.assert_close(box_iou_rotated(a, b), whole, atol=1e-7, rtol=0)
        torch.testing.assert_close(box_iou_rotated(b, a), whole.T, atol=1e-7, rtol=0)


def test_boxes_without_area_and_numbers_that_are_not_finite_have_no_overlap() -> None:
    good = [10.0, 10.0, 20.0, 10.0, 30.0]
    bad = [[10.0, 10, 0, 10, 30], [10, 10, 20, 0, 30], [10, 10, 0, 0, 0], [10, 10, -5, 10, 0]]
    odd = [
        [math.nan, 10, 20, 10, 0],
        [10, 10, math.inf, 10, 0],
        [10, math.inf, 20, 10, 0],
        [10, 10, 20, 10, math.nan],
    ]
    boxes = torch.tensor([good, *bad, *odd] * 20)
    iou = box_iou_rotated(boxes, boxes)
    good_ones = torch.arange(len(boxes)) % 9 == 0
    torch.testing.assert_close(iou, (good_ones[:, None] & good_ones).float())
    assert torch.equal(box_iou_rotated_aligned(torch.tensor(bad), torch.tensor(bad)), torch.zeros(4))


# ---- gradients


def one_sided(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes [5] of the IoU to the left and to the right of each number of ``a``."""
    size = float(torch.minimum(a[2:4].min(), b[2:4].min()))
    step = (
        torch.tensor(
            [1.0, 1, 1, 1, math.degrees(1 / float(torch.maximum(a[2:4].max(), b[2:4].max())))],
            dtype=torch.float64,
        )
        * size
        * 1e-6
    )
    left, right = (
        (
            box_iou_rotated_aligned(a + sign * step.diag(), b.expand(5, 5))
            - box_iou_rotated_aligned(a[None], b[None])
        )
        for sign in (-1, 1)
    )
    return -left / step, right / step


def slopes(a: Tensor, b: Tensor) -> Tensor:
    a = a.clone().requires_grad_()
    box_iou_rotated_aligned(a[None], b[None]).sum().backward()
    assert a.grad is not None
    return a.grad


moderate = st.tuples(
    st.floats(-50, 50), st.floats(-50, 50), st.floats(5, 100), st.floats(5, 100), st.floats(-180, 180)
)


@settings(max_examples=100, deadline=None)
@given(moderate, moderate)
def test_gradients_equal_differences(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    a, b = torch.tensor([first, second], dtype=torch.float64)
    low, high = (torch.minimum(*one_sided(a, b)), torch.maximum(*one_sided(a, b)))
    grad = slopes(a, b)
    assert (grad >= low - 1e-4).all(), (grad, low, high)
    assert (grad <= high + 1e-4).all(), (grad, low, high)


@settings(max_examples=200, deadline=None)
@given(related(NO_TURN + TURNS))
def test_gradients_lie_between_the_slopes_of_both_sides_where_edges_meet(pair: tuple[Tensor, Tensor]) -> None:
    a, b = pair
    for x, y in ((a, b), (b, a)):
        left, right = one_sided(x, y)
        scale = 1e-3 * torch.maximum(left.abs(), right.abs()) + 1e-3 / float(
            torch.minimum(x[2:4].min(), y[2:4].min())
        )
        grad = slopes(x, y)
        assert (grad >= torch.minimum(left, right) - scale).all(), (grad, left, right)
        assert (grad <= torch.maximum(left, right) + scale).all(), (grad, left, right)


def test_gradients_pass_gradcheck_for_both_boxes() -> None:
    a, b = (
        scattered(60, 60, 4, 10, 60).double().requires_grad_(),
        scattered(60, 60, 5, 10, 60).double().requires_grad_(),
    )
    assert float(box_iou_rotated_aligned(a, b).detach().gt(0).float().mean()) > 0.3
    assert torch.autograd.gradcheck(box_iou_rotated_aligned, (a, b))


@given(one_box)
def test_equal_boxes_pull_nowhere(box: Tensor) -> None:
    swapped = torch.stack([box[0], box[1], box[3], box[2], box[4] + 90])
    for other in (box, swapped):
        assert (slopes(box, other) * box[2:4].min()).abs().max() < 1e-6


def test_gradients_point_to_more_overlap() -> None:
    square = torch.tensor([0.0, 0, 10, 10, 0], dtype=torch.float64)
    inside = slopes(torch.tensor([0.0, 0, 4, 4, 20], dtype=torch.float64), square)
    torch.testing.assert_close(inside, torch.tensor([0, 0, 0.04, 0.04, 0], dtype=torch.float64))
    thin = slopes(torch.tensor([1.0, 0, 0, 4, 20], dtype=torch.float64), square)
    assert thin[2] == pytest.approx(4 / 100)
    touching = slopes(torch.tensor([10.0, 0, 10, 10, 0], dtype=torch.float64), square)
    assert touching[0] < 0
    assert torch.equal(
        slopes(torch.tensor([30.0, 0, 10, 10, 15], dtype=torch.float64), square),
        torch.zeros(5, dtype=torch.float64),
    )


@settings(deadline=None)
@given(
    st.lists(st.floats(-3e4, 3e4, width=32), min_size=2, max_size=4),
    st.lists(st.floats(0, 3e4, width=32), min_size=4, max_size=4),
    st.lists(st.floats(-360, 360, width=32), min_size=2, max_size=2),
    st.booleans(),
)
@example([0, 0, 0, 0], [0, 0, 0, 0], [0, 0], True)
@example([0, 0, 0, 0], [1e-40, 1e-40, 1e-40, 1e-40], [0, 0], True)
@example([0, 0, 0, 0], [0, 5, 5, 0], [0, 90], True)
def test_gradients_are_always_finite(
    centres: list[float], sizes: list[float], turns: list[float], together: bool
) -> None:
    a = torch.tensor([[*centres[:2], *sizes[:2], turns[0]]], dtype=torch.float32, requires_grad=True)
    b = torch.tensor(
        [[*(centres[:2] if together else centres[-2:]), *sizes[2:], turns[1]]],
        dtype=torch.float32,
        requires_grad=True,
    )
    iou = box_iou_rotated_aligned(a, b)
    iou.sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert torch.isfinite(torch.cat([iou.detach()[:, None], a.grad, b.grad], 1)).all()


def test_low_precision_goes_in_and_float32_comes_out() -> None:
    boxes = scattered(50, 100, 6).bfloat16()
    other = scattered(50, 100, 7)
    exact = box_iou_rotated_aligned(boxes.double(), other.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        iou = box_iou_rotated_aligned(boxes.requires_grad_(), other)
        matrix = box_iou_rotated(boxes, other)
    assert iou.dtype == matrix.dtype == torch.float32
    torch.testing.assert_close(iou.detach().double(), exact, atol=1e-7, rtol=0)
    torch.testing.assert_close(matrix.diagonal().double(), exact, atol=1e-7, rtol=0)
    iou.sum().backward()
    assert boxes.grad is not None
    assert torch.isfinite(boxes.grad).all()
    assert box_iou_rotated_aligned(other.double(), other).dtype == torch.float64


@pytest.mark.parametrize("n", [0, 1, 600])
def test_empty_inputs(n: int) -> None:
    boxes, none = torch.rand(n, 5), torch.zeros(0, 5)
    assert box_iou_rotated(boxes, none).shape == (n, 0)
    assert box_iou_rotated(none, boxes).shape == (0, n)
    assert [len(part) for part in overlapping_pairs(boxes, none)] == [0, 0, 0]
    nothing = none.clone().requires_grad_()
    box_iou_rotated_aligned(nothing, none).sum().backward()
    assert nothing.grad is not None


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[N, 5\].*\(3, 4\)"):
        box_iou_rotated(torch.zeros(3, 4), torch.zeros(2, 5))
    with pytest.raises(DataError, match=r"equal shapes.*\(3, 5\) and \(2, 5\)"):
        box_iou_rotated_aligned(torch.zeros(3, 5), torch.zeros(2, 5))
