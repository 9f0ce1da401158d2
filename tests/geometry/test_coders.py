"""Box coders: MMRotate's stored figures, slow independent implementations, and properties that hold for any
boxes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from dbf_ray.geometry import (
    DistanceAngleCoder,
    HorizontalBoxCoder,
    HorizontalToRotatedCoder,
    MidpointOffsetCoder,
    RotatedBoxCoder,
    box_iou_rotated_aligned,
    canonicalize,
    circumscribed,
    corners_to_boxes,
)
from tests.geometry.slow_coders import (
    slow_decode_midpoint,
    slow_decode_rotated,
    slow_encode_distances,
    slow_encode_midpoint,
    slow_encode_rotated,
    upright_within,
)

ROI_STDS = (0.1, 0.1, 0.2, 0.2, 0.1)


# ---- the reference's figures
# ---------------------------------------------------------------------------


def numbers(rows: list[list[float]]) -> Tensor:
    return torch.from_numpy(np.array(rows, dtype=np.float32))


def oriented(rows: list[list[float]]) -> Tensor:
    """Boxes from radians clockwise to degrees counter-clockwise, in float32: there -pi/2 becomes 90
    exactly.
    """
    boxes = numbers(rows)
    return torch.cat([boxes[:, :4], -torch.rad2deg(boxes[:, 4:])], -1)


@dataclass(frozen=True)
class Figures:
    """Where the figures of a coder are, and how near to them float32 comes.

    The reference, too, computes in float32, with coordinates up to 1000 whose last digit is 6e-5 pixels.

    Attributes:
        encode: largest difference of a delta, absolute (beside a relative 1e-5).
        sides: largest relative difference of a decoded side.
        angle: largest difference of a decoded angle in degrees.
    """

    key: str
    coder: Any
    anchors: str
    read: Callable[[list[list[float]]], Tensor]
    encode: float
    sides: float = 5e-7
    angle: float = 5e-5
    deltas: str = "random_deltas"


FIGURES = [
    Figures("DeltaXYWHAOBBoxCoder_retina", RotatedBoxCoder(), "proposals", oriented, 5e-7),
    Figures("DeltaXYWHAOBBoxCoder_oriented_rcnn_roi", RotatedBoxCoder(ROI_STDS), "proposals", oriented, 5e-6),
    # The reference takes deltas, sides and angles from corners in absolute coordinates; ours are relative to
    # the box's centre.
    Figures(
        "MidpointOffsetCoder", MidpointOffsetCoder(), "proposals_xyxy", numbers, 1e-5, sides=2e-5, angle=5e-4
    ),
    Figures("DeltaXYWHAHBBoxCoder", HorizontalToRotatedCoder(), "proposals_xyxy", numbers, 5e-7),
    Figures(
        "DistanceAnglePointCoder", DistanceAngleCoder(), "points", numbers, 1e-6, deltas="random_distances"
    ),
]


def assert_same_boxes(found: Tensor, expected: Tensor, bounds: Figures) -> None:
    expected = canonicalize(expected)  # the reference leaves w < h where it decodes distances
    assert (found[:, :2] - expected[:, :2]).abs().max() < 1e-4
    assert ((found[:, 2:4] - expected[:, 2:4]) / expected[:, 2:4]).abs().max() < bounds.sides
    square = (expected[:, 2] - expected[:, 3]) < 1e-3 * expected[:, 2]  # has two names
    period = torch.where(square, 90.0, 180.0)
    turn = found[:, 4] - expected[:, 4]
    assert (turn - period * torch.round(turn / period)).abs().max() < bounds.angle
    assert box_iou_rotated_aligned(found.double(), expected.double()).min() > 0.9999
    assert_canonical(found)


def assert_canonical(boxes: Tensor) -> None:
    assert (boxes[:, 2] >= boxes[:, 3]).all()
    assert ((boxes[:, 4] >= -90) & (boxes[:, 4] < 90)).all()


@pytest.mark.parametrize("figures", FIGURES, ids=lambda figures: figures.key)
def test_every_figure_of_the_reference(shared: Path, figures: Figures) -> None:
    data = json.loads((shared / "reference" / "box_coders.json").read_text())[figures.key]
    coder, anchors, boxes = figures.coder, figures.read(data[figures.anchors]), oriented(data["gts"])
    deltas = coder.encode(anchors, boxes)
    torch.testing.assert_close(deltas, numbers(data["encode"]), atol=figures.encode, rtol=1e-5)
    assert_same_boxes(coder.decode(anchors, deltas), oriented(data["decode_of_encode"]), figures)
    assert_same_boxes(
        coder.decode(anchors, numbers(data["encode"])), oriented(data["decode_of_encode"]), figures
    )
    expected = oriented(data["decode"])
    assert (expected[:, 2:4] > 0).all()  # none is degenerate, so all are compared
    assert_same_boxes(coder.decode(anchors, numbers(data[figures.deltas])), expected, figures)


@pytest.mark.parametrize("figures", FIGURES[:2], ids=lambda figures: figures.key)
def test_centres_are_moved_into_the_image_as_in_the_reference(shared: Path, figures: Figures) -> None:
    data = json.loads((shared / "reference" / "box_coders.json").read_text())[figures.key]
    decoded = figures.coder.decode(oriented(data["proposals"]), numbers(data["random_deltas"]), (512, 512))
    assert_same_boxes(decoded, oriented(data["decode_max_shape_512"]), figures)
    assert (decoded[:, :2] == 511).any()


def test_limited_distances_equal_the_reference(shared: Path) -> None:
    data = json.loads((shared / "reference" / "box_coders.json").read_text())["DistanceAnglePointCoder"]
    found = DistanceAngleCoder().encode(numbers(data["points"]), oriented(data["gts"]), max_distance=64)
    torch.testing.assert_close(found, numbers(data["encode_max_dis_64"]), atol=1e-6, rtol=1e-5)


# ---- slow implementations: slow_coders.py
# ---------------------------------------------------------------------------


def random_boxes(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    center, sides, angle = (
        uniform[:, :2] * 300,
        low * (high / low) ** uniform[:, 2:4],
        uniform[:, 4:] * 179.9 - 89.95,
    )
    return torch.cat([center, sides, angle], -1)


def rows(slow: Callable[[list[float], list[float]], list[float]], anchors: Tensor, others: Tensor) -> Tensor:
    return torch.tensor(
        [slow(a, b) for a, b in zip(anchors.tolist(), others.tolist(), strict=True)], dtype=torch.float64
    )


def test_coders_equal_slow_ones() -> None:
    generator = torch.Generator().manual_seed(7)
    anchors, boxes = random_boxes(300, 4, 400, generator), canonicalize(random_boxes(300, 4, 400, generator))
    upright, points = circumscribed(anchors), anchors[:, :2]
    unturned = torch.cat(
        [(upright[:, :2] + upright[:, 2:]) / 2, upright[:, 2:] - upright[:, :2], torch.zeros(300, 1)], -1
    )
    deltas = torch.randn(300, 6, generator=generator, dtype=torch.float64) * torch.tensor(
        [1, 1, 2.5, 2.5, 0.5, 0.5]
    )
    rotated, turned, midpoint = (
        RotatedBoxCoder(),
        HorizontalToRotatedCoder((1, 1, 1, 1, 1)),
        MidpointOffsetCoder((1, 1, 1, 1, 1, 1)),
    )
    exact = {"atol": 1e-10, "rtol": 1e-10}
    torch.testing.assert_close(
        rotated.encode(anchors, boxes), rows(slow_encode_rotated, anchors, boxes), **exact
    )
    found, slow = rotated.decode(anchors, deltas[:, :5]), rows(slow_decode_rotated, anchors, deltas[:, :5])
    torch.testing.assert_close(found, canonicalize(slow), **exact)
    whole_turns = torch.tensor([1, 1, 1, 1, 2 * math.pi], dtype=torch.float64)
    torch.testing.assert_close(
        turned.encode(upright, boxes) * whole_turns, rows(slow_encode_rotated, unturned, boxes), **exact
    )
    slow = rows(slow_decode_rotated, unturned, deltas[:, :5] * whole_turns)
    torch.testing.assert_close(turned.decode(upright, deltas[:, :5]), canonicalize(slow), **exact)
    torch.testing.assert_close(
        midpoint.encode(upright, boxes), rows(slow_encode_midpoint, upright, boxes), **exact
    )
    found, slow = (
        midpoint.decode(upright, deltas),
        corners_to_boxes(rows(slow_decode_midpoint, upright, deltas)),
    )
    proper = slow[:, 3] > 1e-6
    assert not proper.all()  # touching at opposite corners gives a flat box
    assert box_iou_rotated_aligned(found[proper], slow[proper]).min() > 1 - 1e-7
    torch.testing.assert_close(found[:, :4], slow[:, :4], atol=1e-8, rtol=1e-10)
    torch.testing.assert_close(
        DistanceAngleCoder().encode(points, boxes), rows(slow_encode_distances, points, boxes), **exact
    )


def test_horizontal_boxes_equal_torchvision_where_it_limits_nothing() -> None:
    generator = torch.Generator().manual_seed(3)
    anchors, boxes = (circumscribed(random_boxes(200, 4, 200, generator)) for _ in range(2))
    stds = (0.1, 0.1, 0.2, 0.2)
    ours, theirs = HorizontalBoxCoder(stds), BoxCoder(tuple(1 / std for std in stds))
    torch.testing.assert_close(ours.encode(anchors, boxes), theirs.encode_single(boxes, anchors))
    deltas = torch.randn(200, 4, generator=generator, dtype=torch.float64) * 2
    torch.testing.assert_close(ours.decode(anchors, deltas), theirs.decode_single(deltas, anchors))


def test_horizontal_boxes_are_limited_and_cut() -> None:
    anchors = torch.tensor([[10.0, 20, 30, 60]]).expand(3, 4)
    deltas = torch.tensor([[0.0, 0, 50, -50], [-2, 0, 0, 0], [0.5, 1, 0, 0]])
    far, thin = 20 * 62.5 / 2, 40 / 62.5 / 2
    whole = HorizontalBoxCoder().decode(anchors, deltas)
    torch.testing.assert_close(
        whole,
        torch.tensor([[20 - far, 40 - thin, 20 + far, 40 + thin], [-30, 20, -10, 60], [20, 60, 40, 100]]),
    )
    cut = HorizontalBoxCoder().decode(anchors, deltas, (80, 100))
    torch.testing.assert_close(
        cut, torch.tensor([[0, 40 - thin, 100, 40 + thin], [0, 20, 0, 60], [20, 60, 40, 80]])
    )


# ---- properties of all coders
# ---------------------------------------------------------------------------


def box_strategy(smallest: float = 16) -> st.SearchStrategy[Tensor]:
    """A canonical box [1, 5], far within the limits of decoding for any anchor that :func:`anchor_of` makes
    of another.
    """
    side, place = st.floats(smallest, 480, width=32), st.floats(0, 1000, width=32)
    box = st.tuples(place, place, side, side, st.floats(-90, 90, width=32))
    return box.map(lambda values: canonicalize(torch.tensor([values], dtype=torch.float64)))


@dataclass(frozen=True)
class Member:
    """A coder and how to make, from an oriented box [N, 5], what it encodes from and what it encodes."""

    coder: Any
    anchor_of: Callable[[Tensor], Tensor]
    target_of: Callable[[Tensor], Tensor] = lambda box: box
    width: int = 5


MEMBERS = {
    "rotated": Member(RotatedBoxCoder(), lambda box: box),
    "rotated, RoI": Member(
        RotatedBoxCoder(ROI_STDS), lambda box: box[:, [0, 1, 3, 2, 4]]
    ),  # an anchor need not be canonical
    "horizontal": Member(HorizontalBoxCoder(), circumscribed, circumscribed, width=4),
    "midpoint": Member(MidpointOffsetCoder(), circumscribed, width=6),
    "horizontal to rotated": Member(HorizontalToRotatedCoder(), circumscribed),
    "distances": Member(DistanceAngleCoder(), lambda box: box[:, :2]),
}
every_member = pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """IoU [N] of oriented boxes, or of upright ones."""
    boxes = [
        x
        if x.shape[-1] == 5
        else torch.cat([(x[:, :2] + x[:, 2:]) / 2, x[:, 2:] - x[:, :2], 0 * x[:, :1]], -1)
        for x in (a, b)
    ]
    return box_iou_rotated_aligned(boxes[0].double(), boxes[1].double())


@every_member
@settings(deadline=None)
@given(box=box_strategy(), other=box_strategy())
def test_decoding_brings_an_encoded_box_back(member: Member, box: Tensor, other: Tensor) -> None:
    if isinstance(member.coder, MidpointOffsetCoder):
        assume(not upright_within(box[0].tolist(), 0.11))  # see the test of nearly upright boxes
    for dtype, least in ((torch.float64, 1 - 1e-7), (torch.float32, 0.9999)):
        anchor, target = member.anchor_of(other).to(dtype), member.target_of(box).to(dtype)
        deltas = member.coder.encode(anchor, target)
        assert deltas.shape == (1, member.width)
        decoded = member.coder.decode(anchor, deltas)
        assert decoded.dtype == deltas.dtype == dtype
        assert overlap(decoded, target).item() > least
        if target.shape[-1] == 5:
            assert_canonical(decoded)


@every_member
@settings(deadline=None)
@given(box=box_strategy(2), other=box_strategy(2), x=st.floats(-20000, 20000), y=st.floats(-20000, 20000))
def test_moving_anchor_and_box_together_changes_no_delta(
    member: Member, box: Tensor, other: Tensor, x: float, y: float
) -> None:
    move = torch.tensor([[x, y, 0, 0, 0]], dtype=torch.float64)
    anchor, target = member.anchor_of(other), member.target_of(box)
    moved_anchor, moved_target = member.anchor_of(other + move), member.target_of(box + move)
    deltas = member.coder.encode(anchor, target)
    torch.testing.assert_close(member.coder.encode(moved_anchor, moved_target), deltas, atol=1e-8, rtol=1e-8)
    decoded = member.coder.decode(anchor, deltas)
    shift = move if decoded.shape[-1] == 5 else move[:, [0, 1, 0, 1]]
    assert overlap(member.coder.decode(moved_anchor, deltas), decoded + shift).item() > 1 - 1e-7


@settings(deadline=None)
@given(box=box_strategy(), other=box_strategy(), turn=st.floats(-180, 180))
def test_turning_anchor_and_box_together_changes_no_delta_of_the_rotated_coder(
    box: Tensor, other: Tensor, turn: float
) -> None:
    def turned(boxes: Tensor) -> Tensor:
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        # of row vectors, counter-clockwise with y down
        matrix = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
        return torch.cat([boxes[:, :2] @ matrix, boxes[:, 2:4], boxes[:, 4:] + turn], -1)

    coder = RotatedBoxCoder()
    deltas = coder.encode(other, box)
    assume(abs(deltas[0, 4].abs() - math.pi / 4) > 1e-6)  # there both names are equally near
    torch.testing.assert_close(coder.encode(turned(other), turned(box)), deltas, atol=1e-9, rtol=1e-9)


@every_member
def test_nothing_in_nothing_out(member: Member) -> None:
    none = torch.zeros(0, 5)
    anchors = member.anchor_of(none)
    deltas = member.coder.encode(anchors, member.target_of(none))
    assert deltas.shape == (0, member.width)
    assert member.coder.decode(anchors, deltas.requires_grad_()).shape == member.target_of(none).shape


@every_member
def test_gradients_of_decoding_are_finite_and_right(member: Member) -> None:
    generator = torch.Generator().manual_seed(5)
    anchors = member.anchor_of(random_boxes(40, 8, 200, generator))
    shape = (40, member.width)
    size = 20.0 if isinstance(member.coder, DistanceAngleCoder) else 0.3
    # no side is limited, no distance negative
    gentle = (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1) * size
    assert torch.autograd.gradcheck(
        lambda deltas: member.coder.decode(anchors, deltas), gentle.requires_grad_()
    )
    wild = torch.randn(shape, generator=generator) * 10.0 ** torch.randint(-3, 5, shape, generator=generator)
    wild[:3] = torch.tensor([[0.0], [1e4], [-1e4]])
    wild[3] = torch.tensor([0, 0, 0, 0, 5, -5])[: member.width]  # touching at opposite corners: a flat box
    wild.requires_grad_()
    decoded = member.coder.decode(anchors.float(), wild)
    decoded.sum().backward()
    assert torch.isfinite(decoded).all()
    assert torch.isfinite(wild.grad).all()


@every_member
def test_low_precision_deltas_give_float32_boxes(member: Member) -> None:
    anchors = member.anchor_of(torch.tensor([[100.0, 100, 40, 20, 30]]))
    deltas = torch.full((1, member.width), 0.5, dtype=torch.bfloat16)
    decoded = member.coder.decode(anchors, deltas)
    torch.testing.assert_close(decoded, member.coder.decode(anchors, deltas.float()), atol=0, rtol=0)


# ---- single coders
# ---------------------------------------------------------------------------


def test_centres_alone_are_moved_into_the_image() -> None:
    anchors = torch.tensor([[10.0, 10, 40, 20, 30]]).expand(2, 5)
    deltas = torch.tensor([[-3.0, 0, 0.2, 0, 0.1], [9.0, 0, 0, 0, 0]])
    free, held = (
        RotatedBoxCoder().decode(anchors, deltas),
        RotatedBoxCoder().decode(anchors, deltas, (90, 120)),
    )
    torch.testing.assert_close(held[:, 2:], free[:, 2:], atol=0, rtol=0)
    torch.testing.assert_close(held[:, :2], torch.tensor([[0.0, free[0, 1]], [119, 0]]))
    assert free[0, 0] < 0 < free[0, 1] < 89
    assert free[1, 0] > 119


@pytest.mark.parametrize("member", ["horizontal to rotated", "distances"])
def test_coders_that_move_nothing_into_the_image(member: str) -> None:
    coder, anchors = (
        MEMBERS[member].coder,
        MEMBERS[member].anchor_of(torch.tensor([[300.0, 300, 40, 20, 30]])),
    )
    deltas = torch.full((1, 5), 0.5)
    torch.testing.assert_close(
        coder.decode(anchors, deltas, (64, 64)), coder.decode(anchors, deltas), atol=0, rtol=0
    )


@pytest.mark.parametrize("angle", [-90.0, 90.0])
def test_a_box_at_the_border_of_angles_is_minus_a_quarter_turn_in_the_reference(angle: float) -> None:
    box = torch.tensor([[100.0, 100, 60, 20, angle]])
    found = DistanceAngleCoder().encode(torch.tensor([[103.0, 90.0]]), box)
    # With the reference's angle the side w runs upwards: left is below, top is left.
    torch.testing.assert_close(found, torch.tensor([[40.0, 13, 20, 7, -math.pi / 2]]))
    assert overlap(DistanceAngleCoder().decode(torch.tensor([[103.0, 90.0]]), found), box).item() > 0.9999


@settings(deadline=None)
@given(
    w=st.floats(8, 480),
    h=st.floats(2, 480),
    turn=st.floats(-1, 1),
    quarter=st.sampled_from([0, -90]),
    tilt=st.sampled_from([0.1, 0.3, 3.0]),
)
@example(w=100.0, h=4.0, turn=-0.5, quarter=0, tilt=3.0)  # the reference decodes these three to flat boxes
@example(w=100.0, h=4.0, turn=-0.3, quarter=-90, tilt=3.0)
@example(w=60.0, h=10.0, turn=-0.2, quarter=0, tilt=3.0)
def test_nearly_upright_boxes_come_back(w: float, h: float, turn: float, quarter: float, tilt: float) -> None:
    # the longer side rises up to ``tilt`` pixels
    angle = math.degrees(math.asin(turn * min(1.0, tilt / max(w, h))))
    box = canonicalize(torch.tensor([[200.0, 200, w, h, quarter + angle]], dtype=torch.float64))
    assume(not 0.099 < abs(turn) * tilt < 0.101)
    anchor = torch.tensor([[150.0, 140, 260, 250]], dtype=torch.float64)
    coder = MidpointOffsetCoder()
    deltas = coder.encode(anchor, box)
    back = overlap(coder.decode(anchor, deltas), box).item()
    # decoded upright: it contains the box, and each side is at most 0.1 pixels longer
    if upright_within(box[0].tolist(), 0.1):
        torch.testing.assert_close(
            deltas[0, 4:], torch.ones(2, dtype=torch.float64), atol=0.2 / min(w, h), rtol=0
        )
        assert back >= 1 / ((1 + 0.1 / w) * (1 + 0.1 / h)) - 1e-7
    else:
        assert back > 1 - 1e-7


def test_midpoint_deltas_by_hand() -> None:
    # It touches the top a quarter of the width left of its middle, the right side a quarter of the height
    # below.
    box = corners_to_boxes(torch.tensor([[-25.0, -50, 50, 25, 25, 50, -50, -25]], dtype=torch.float64))
    anchor = torch.tensor([[-50.0, -50, 50, 50]], dtype=torch.float64)
    deltas = MidpointOffsetCoder().encode(anchor, box)
    torch.testing.assert_close(
        deltas, torch.tensor([[0, 0, 0, 0, -0.5, 0.5]], dtype=torch.float64), atol=1e-9, rtol=0
    )
