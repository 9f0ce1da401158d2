"""Losses: MMRotate's stored values and gradients, torchvision and shapely as second witnesses, precision far
from the origin.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from dbf_ray.detectors.losses import (
    binary_cross_entropy,
    cross_entropy,
    l1_loss,
    rotated_iou_loss,
    sigmoid_focal_loss,
)
from dbf_ray.errors import ConfigError
from dbf_ray.geometry import boxes_to_corners

MODES = ("log", "linear", "square")
# of a gradient by the reference's angle: ours is in degrees and counter-clockwise
PER_DEGREE = -math.pi / 180


@pytest.fixture(scope="module")
def stored(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "reference" / "losses.json").read_text())


def value_and_gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    at = at.detach().clone().requires_grad_()
    value = loss(at)
    assert value.shape == ()
    return value.detach(), torch.autograd.grad(value, at)[0]


# ---- the reference's figures
# ---------------------------------------------------------------------------


def test_focal_loss_equals_the_reference(stored: dict[str, Any]) -> None:
    data = stored["FocalLoss_sigmoid_g2_a025"]
    logits, targets, weights = (
        torch.tensor(data["logits"]),
        torch.tensor(data["target"]),
        torch.tensor(data["weight"]),
    )
    targets = torch.where(targets == data["num_classes"], -1, targets)
    assert (targets < 0).any()
    near = {"atol": 2e-7, "rtol": 1e-5}
    for key, divisor, weight in (
        ("sum", 1, None),
        ("mean", logits.numel(), None),
        ("avg_factor_7", 7, weights),
    ):
        value, gradient = value_and_gradient(
            lambda x, w=weight, by=divisor: sigmoid_focal_loss(x, targets, weights=w) / by, logits
        )
        assert value.item() == pytest.approx(data[key], rel=1e-6)
        torch.testing.assert_close(gradient, torch.tensor(data[f"{key}_grad"]), **near)
    for row, column in torch.cartesian_prod(torch.arange(12), torch.arange(5)).tolist():
        target = torch.where(targets[row : row + 1] == column, 0, -1)
        value, gradient = value_and_gradient(
            lambda x, t=target: sigmoid_focal_loss(x, t), logits[row : row + 1, column : column + 1]
        )
        assert value.item() == pytest.approx(data["none"][row][column], rel=1e-5, abs=1e-7)
        assert gradient.item() == pytest.approx(data["none_grad"][row][column], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("key", "beta"),
    [
        ("SmoothL1Loss_beta_1.0000", 1.0),
        ("SmoothL1Loss_beta_0.1111", 1 / 9),
        ("SmoothL1Loss_beta_0.3333", 1 / 3),
        ("L1Loss", 0.0),
    ],
)
def test_l1_losses_equal_the_reference(stored: dict[str, Any], key: str, beta: float) -> None:
    data = stored[key]
    assert data.get("beta", 0.0) == beta
    predicted, wanted, weights = (torch.tensor(data[name]) for name in ("pred", "target", "weight"))
    value, gradient = value_and_gradient(lambda x: l1_loss(x, wanted, beta) / x.numel(), predicted)
    assert value.item() == pytest.approx(data["mean"], rel=1e-6)
    expected = (
        torch.tensor(data["mean_grad"])
        if "mean_grad" in data
        else torch.sign(predicted - wanted) / predicted.numel()
    )
    torch.testing.assert_close(gradient, expected, atol=1e-8, rtol=1e-5)
    assert l1_loss(predicted, wanted, beta, weights).item() / 4 == pytest.approx(
        data["weighted_avg_factor_4"], rel=1e-6
    )


def test_sigmoid_cross_entropies_equal_the_reference(stored: dict[str, Any]) -> None:
    regions, centerness = (
        stored["CrossEntropy_use_sigmoid_RPN"],
        stored["CrossEntropy_use_sigmoid_centerness"],
    )
    foreground = (torch.tensor(regions["label_0_is_fg"]) == 0)[:, None]
    value, gradient = value_and_gradient(
        lambda x: binary_cross_entropy(x, foreground) / 9, torch.tensor(regions["logits"])
    )
    assert value.item() == pytest.approx(regions["use_sigmoid_mean"], rel=1e-6)
    torch.testing.assert_close(gradient, torch.tensor(regions["grad"]), atol=1e-8, rtol=1e-5)
    soft = torch.tensor(centerness["soft_target"])
    value, gradient = value_and_gradient(
        lambda x: binary_cross_entropy(x, soft) / 9, torch.tensor(centerness["logits"])
    )
    assert value.item() == pytest.approx(centerness["mean"], rel=1e-6)
    assert value.item() * 9 / 4 == pytest.approx(centerness["avg_factor_4"], rel=1e-6)
    torch.testing.assert_close(gradient, torch.tensor(centerness["grad"]), atol=1e-8, rtol=1e-5)


def test_softmax_cross_entropy_equals_the_reference(stored: dict[str, Any]) -> None:
    data = stored["CrossEntropy_softmax"]
    labels = torch.tensor(data["target"])
    value, gradient = value_and_gradient(lambda x: cross_entropy(x, labels) / 9, torch.tensor(data["logits"]))
    assert value.item() == pytest.approx(data["mean"], rel=1e-6)
    assert value.item() * 9 / 512 == pytest.approx(data["avg_factor_512"], rel=1e-6)
    torch.testing.assert_close(gradient, torch.tensor(data["grad"]), atol=1e-8, rtol=1e-5)


def pairs(data: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Boxes [20, 5], float64, our convention; the reference worked on them in float32 and absolute
    coordinates.
    """
    boxes = [torch.tensor(data[name]).double() for name in ("pred", "target")]
    return tuple(torch.cat([box[:, :4], -torch.rad2deg(box[:, 4:])], -1) for box in boxes)


def each(predicted: Tensor, wanted: Tensor, mode: str = "log") -> Tensor:
    """The loss of every pair [N]."""
    return torch.stack(
        [rotated_iou_loss(a[None], b[None], mode=mode) for a, b in zip(predicted, wanted, strict=True)]
    )


def in_degrees(gradient: list[list[float]]) -> Tensor:
    by_radians = torch.tensor(gradient, dtype=torch.float64)
    return torch.cat([by_radians[:, :4], by_radians[:, 4:] * PER_DEGREE], -1)


@pytest.mark.parametrize("mode", MODES)
def test_rotated_iou_loss_equals_the_reference(stored: dict[str, Any], mode: str) -> None:
    data = stored["RotatedIoULoss"]
    predicted, wanted = pairs(data)
    values = each(predicted, wanted, mode)
    torch.testing.assert_close(
        values, torch.tensor(data[f"{mode}_none"], dtype=torch.float64), atol=5e-6, rtol=0
    )
    total, gradient = value_and_gradient(lambda x: rotated_iou_loss(x, wanted, mode=mode), predicted)
    assert total.item() == pytest.approx(values.sum().item(), rel=1e-12)
    expected = in_degrees(data[f"{mode}_grad"])
    torch.testing.assert_close(gradient[:18], expected[:18], atol=5e-7, rtol=0)
    # Row 18 is a pair of equal boxes, where the IoU has a peak: growing costs 1 / side, shrinking too. The
    # reference gives one of the two slopes; anything between them is a gradient there.
    steepest = (2 if mode == "square" else 1) / predicted[18, 2:4]
    assert (gradient[18, 2:4].abs() <= steepest * (1 + 1e-6)).all()
    assert gradient[18, [0, 1, 4]].abs().max() < 1e-9
    # Row 19 is a pair that does not touch.
    assert torch.equal(gradient[19], torch.zeros(5, dtype=torch.float64))
    assert torch.equal(expected[19], gradient[19])


def test_rotated_iou_loss_equals_the_exact_polygons(stored: dict[str, Any]) -> None:
    data = stored["RotatedIoULoss"]
    predicted, wanted = pairs(data)
    values = each(predicted, wanted)
    torch.testing.assert_close(
        values, torch.tensor(data["exact_minus_log"], dtype=torch.float64), atol=1e-6, rtol=0
    )
    _, gradient = value_and_gradient(lambda x: rotated_iou_loss(x, wanted), predicted)
    exact = in_degrees(data["numeric_exact_grad_rows_0_17"])
    torch.testing.assert_close(gradient[:18], exact, atol=2e-8, rtol=1e-6)


def test_weighted_rotated_iou_loss_equals_the_reference(stored: dict[str, Any]) -> None:
    data = stored["RotatedIoULoss"]
    predicted, wanted = pairs(data)
    weights = torch.tensor(data["weight"])
    value, gradient = value_and_gradient(
        lambda x: rotated_iou_loss(x, wanted, weights) / weights.sum(), predicted
    )
    assert value.item() == pytest.approx(data["log_weighted_avg_factor"], rel=1e-6)
    expected = in_degrees(data["log_weighted_avg_factor_grad"])
    torch.testing.assert_close(gradient[:18], expected[:18], atol=1e-7, rtol=0)
    assert torch.equal(gradient[19], torch.zeros(5, dtype=torch.float64))


# ---- second witnesses
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.25, 0.6])
@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_loss_equals_torchvision(alpha: float, gamma: float) -> None:
    logits, targets, weights = (
        torch.randn(400, 7).double() * 4 - 2,
        torch.randint(-3, 7, (400,)),
        torch.rand(400).double(),
    )
    one_hot = F.one_hot(targets.clamp(min=0), 7).double() * (targets >= 0)[:, None]
    ours = value_and_gradient(lambda x: sigmoid_focal_loss(x, targets, alpha, gamma, weights), logits)
    theirs = value_and_gradient(
        lambda x: (torchvision_focal_loss(x, one_hot, alpha, gamma) * weights[:, None]).sum(), logits
    )
    # Their 1 - p loses digits where p is small; in float64 that is far below this bound.
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_focal_loss_keeps_the_digits_of_sure_entries() -> None:
    logits, targets = torch.linspace(-30, 30, 61)[:, None], torch.tensor([-1, 0]).repeat(31)[:61]
    _, rough = value_and_gradient(lambda x: sigmoid_focal_loss(x, targets), logits)
    _, exact = value_and_gradient(lambda x: sigmoid_focal_loss(x, targets), logits.double())
    torch.testing.assert_close(rough.double(), exact, atol=0, rtol=2e-5)


def exact_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU [N] by shapely, in float64."""
    polygons = [
        shapely.polygons(boxes_to_corners(box.double()).unflatten(-1, (4, 2)).numpy()) for box in (a, b)
    ]
    shared = shapely.area(shapely.intersection(*polygons))
    return torch.from_numpy(shared / (shapely.area(polygons[0]) + shapely.area(polygons[1]) - shared))


def near_pairs(count: int, low: float, high: float, place: float) -> tuple[Tensor, Tensor]:
    """Overlapping pairs with sides in low..high around (place, place), in float32."""
    generator = torch.Generator().manual_seed(11)
    wanted = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    wanted = torch.cat(
        [wanted[:, :2] * low, low + wanted[:, 2:4] * (high - low), wanted[:, 4:] * 180 - 90], -1
    )
    shake = (torch.rand(count, 5, generator=generator, dtype=torch.float64) - 0.5) * torch.tensor(
        [0.5, 0.5, 0.5, 0.5, 0]
    )
    predicted = torch.cat(
        [wanted[:, :4] + low * shake[:, :4], torch.rand(count, 1, generator=generator) * 180 - 90], -1
    )
    move = torch.tensor([place, place, 0, 0, 0])
    return (predicted + move).float(), (wanted + move).float()


def gradient_by_differences(predicted: Tensor, wanted: Tensor, step: float = 1e-5) -> Tensor:
    """d(1 - IoU) by central differences [N, 5], of shapely's areas about the pair's own centre."""
    origin = torch.cat([wanted[:, :2], torch.zeros(len(wanted), 3)], -1).double()
    predicted, wanted = predicted.double() - origin, wanted.double() - origin
    steps = step * torch.eye(5, dtype=torch.float64)
    return torch.stack(
        [-(exact_iou(predicted + s, wanted) - exact_iou(predicted - s, wanted)) / (2 * step) for s in steps],
        -1,
    )


@pytest.mark.parametrize("place", [0.0, 100.0, 500.0, 1000.0, 20000.0])
@pytest.mark.parametrize("sides", [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0)])
def test_boxes_far_from_the_origin_lose_no_precision(sides: tuple[float, float], place: float) -> None:
    predicted, wanted = near_pairs(150, *sides, place)
    origin = torch.cat([wanted[:, :2], torch.zeros(150, 3)], -1).double()
    exact = exact_iou(predicted.double() - origin, wanted.double() - origin)
    values = each(predicted, wanted, "linear")
    assert values.dtype == torch.float32
    assert (1 - values.double() - exact).abs().max() < 1e-7
    _, gradient = value_and_gradient(lambda x: rotated_iou_loss(x, wanted, mode="linear"), predicted)
    differences = gradient_by_differences(predicted, wanted)
    error = (gradient.double() - differences).abs().amax(-1) / differences.abs().amax(-1)
    # A vertex within a step of an edge spoils a difference, not the gradient: such pairs are rare.
    assert error.quantile(0.98) < 1e-6
    assert error.max() < 1e-2


def test_the_reference_loses_there_what_we_keep(shared: Path) -> None:
    rows = json.loads((shared / "reference" / "fcos_iou_precision.json").read_text())["rows"]
    assert rows
    for row in rows:
        predicted, wanted = near_pairs(100, *row["side_units"], row["centre_px"])
        origin = torch.cat([wanted[:, :2], torch.zeros(100, 3)], -1).double()
        exact = exact_iou(predicted.double() - origin, wanted.double() - origin)
        values = each(predicted, wanted, "linear")
        assert (1 - values.double() - exact).abs().max() < max(1e-7, row["float64_centred_err_max"])
        if row["centre_px"]:
            assert (1 - values.double() - exact).abs().max() < 0.01 * row["iou_err_median"]


@pytest.mark.parametrize("mode", MODES)
def test_small_rotated_iou_losses_keep_their_digits(mode: str) -> None:
    wanted, predicted = (
        torch.tensor([[300.0, 200, 1024, 64, 30]]),
        torch.tensor([[300.0, 200, 1024.001, 64, 30]]),
    )
    linear = 1 - 1024 / predicted[0, 2].double()
    expected = {"log": -torch.log1p(-linear), "linear": linear, "square": linear * (2 - linear)}[mode]
    assert rotated_iou_loss(predicted, wanted, mode=mode).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_rotated_iou_loss_agrees_with_its_differences(mode: str) -> None:
    predicted, wanted = (boxes.double() for boxes in near_pairs(12, 4, 8, 100))
    weights = torch.rand(12).double()
    assert torch.autograd.gradcheck(
        lambda x: rotated_iou_loss(x, wanted, weights, mode), predicted.requires_grad_(), eps=1e-6, atol=1e-6
    )


# ---- any input
# ---------------------------------------------------------------------------


PLACE = st.floats(-2e4, 2e4, width=32)
# a gradient grows like 1 / side: at 1e-45 float32 could not hold it
SIDE = st.just(0.0) | st.floats(2**-20, 2e4, width=32)
BOX = st.tuples(PLACE, PLACE, SIDE, SIDE, st.floats(-720, 720))


@settings(deadline=None)
@given(
    predicted=BOX,
    wanted=BOX,
    change=st.sampled_from(["none", "same", "swapped", "grown", "concentric"]),
    mode=st.sampled_from(MODES),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_rotated_iou_loss_and_its_gradient_are_finite(
    predicted: tuple[float, ...], wanted: tuple[float, ...], change: str, mode: str, dtype: torch.dtype
) -> None:
    x, y, w, h, angle = predicted
    wanted = {
        "none": wanted,
        "same": predicted,
        "swapped": (x, y, h, w, angle + 90),
        "grown": (x, y, 2 * w, h, angle),
        "concentric": (x, y, *wanted[2:]),
    }[change]
    value, gradient = value_and_gradient(
        lambda b: rotated_iou_loss(b, torch.tensor([wanted], dtype=dtype), mode=mode),
        torch.tensor([predicted], dtype=dtype),
    )
    assert value.dtype == dtype
    assert -1e-6 <= value.item() <= 13.8156
    assert torch.isfinite(gradient).all()


@settings(deadline=None)
@given(logit=st.floats(-1e4, 1e4, width=32), target=st.sampled_from([-1, 0, 1]), weight=st.floats(0, 10))
def test_classification_losses_are_finite(logit: float, target: int, weight: float) -> None:
    logits, targets = torch.tensor([[logit, -logit]]), torch.tensor([target])
    for loss in (
        lambda x: sigmoid_focal_loss(x, targets, weights=torch.tensor([weight])),
        lambda x: cross_entropy(x, targets.clamp(min=0), torch.tensor([weight])),
        lambda x: binary_cross_entropy(x, torch.tensor([[0.3, 1.0]])),
    ):
        value, gradient = value_and_gradient(loss, logits)
        assert torch.isfinite(value)
        assert value >= 0
        assert torch.isfinite(gradient).all()


LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[[int], tuple[Tensor, Tensor]]]] = {
    "focal": (sigmoid_focal_loss, lambda n: (torch.randn(n, 3), torch.randint(-1, 3, (n,)))),
    "l1": (l1_loss, lambda n: (torch.randn(n, 5), torch.randn(n, 5))),
    "smooth l1": (lambda x, y: l1_loss(x, y, 0.1), lambda n: (torch.randn(n, 5), torch.randn(n, 5))),
    "cross-entropy": (cross_entropy, lambda n: (torch.randn(n, 4), torch.randint(0, 4, (n,)))),
    "binary cross-entropy": (binary_cross_entropy, lambda n: (torch.randn(n), torch.rand(n))),
    "rotated IoU": (rotated_iou_loss, lambda n: (torch.rand(n, 5) * 10 + 5, torch.rand(n, 5) * 10 + 5)),
}
every_loss = pytest.mark.parametrize(("loss", "make"), LOSSES.values(), ids=LOSSES)


@every_loss
def test_nothing_costs_nothing(
    loss: Callable[..., Tensor], make: Callable[[int], tuple[Tensor, Tensor]]
) -> None:
    predicted, wanted = make(0)
    value, gradient = value_and_gradient(lambda x: loss(x, wanted), predicted)
    assert value.item() == 0
    assert gradient.shape == predicted.shape


@every_loss
def test_losses_are_sums_in_float32_under_autocast_too(
    loss: Callable[..., Tensor], make: Callable[[int], tuple[Tensor, Tensor]]
) -> None:
    predicted, wanted = make(50)
    predicted = predicted.bfloat16()
    exact = loss(predicted.double(), wanted.double() if wanted.is_floating_point() else wanted)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(predicted, wanted)
        parts = loss(predicted[:20], wanted[:20]) + loss(predicted[20:], wanted[20:])
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, atol=0, rtol=2e-6)
    torch.testing.assert_close(parts, value, atol=0, rtol=2e-6)


@pytest.mark.parametrize("name", ["focal", "cross-entropy", "rotated IoU", "smooth l1"])
def test_weights_count_rows(name: str) -> None:
    loss, make = LOSSES[name]
    if name == "smooth l1":
        loss = lambda x, y, weights=None: l1_loss(x, y, 0.1, weights if weights is None else weights[:, None])  # noqa: E731
    predicted, wanted = make(6)
    twice = torch.tensor([0, 1, 1, 3, 4])
    weights = torch.tensor([1.0, 2, 0, 1, 1, 0])
    torch.testing.assert_close(
        loss(predicted, wanted, weights=weights), loss(predicted[twice], wanted[twice])
    )


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be log, linear or square, got 'cubic'"):
        rotated_iou_loss(torch.ones(1, 5), torch.ones(1, 5), mode="cubic")
