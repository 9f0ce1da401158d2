"""Rotated RoIAlign against a loop over samples, torchvision's upright one, turned maps and differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from dbf_ray.errors import DataError
from dbf_ray.geometry import circumscribed, roi_align_rotated
from tests.geometry import slow

one_roi = st.tuples(
    st.integers(0, 1),
    st.floats(-20, 120),
    st.floats(-20, 100),
    st.floats(0, 150),
    st.floats(0, 150),
    st.floats(-200, 200),
)
rois_of = st.lists(one_roi, min_size=1, max_size=4).map(lambda rows: torch.tensor(rows, dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(
    rois_of,
    st.sampled_from([(7, 7), (2, 3), (1, 1)]),
    st.sampled_from([1.0, 0.25, 0.125]),
    st.sampled_from([0, 1, 2, 3]),
)
def test_it_equals_a_loop_over_samples(
    rois: Tensor, bins: tuple[int, int], scale: float, sampling: int
) -> None:
    features = torch.randn(2, 3, 13, 11, dtype=torch.float64)
    found = roi_align_rotated(features, rois, bins, scale, sampling)
    torch.testing.assert_close(
        found, slow.roi_align(features, rois, bins, scale, sampling), atol=1e-9, rtol=0
    )


def test_at_angle_0_it_is_the_upright_one() -> None:
    features = torch.randn(2, 4, 20, 24)
    rois = torch.cat([torch.randint(2, (30, 1)).float(), slow.scattered(30, 160, 1)], 1)
    rois[:, 5] = 0
    upright = torch.cat([rois[:, :1], circumscribed(rois[:, 1:])], 1)
    for sampling in (2, 0):
        expected = roi_align(features, upright, (5, 7), 0.125, sampling or -1, aligned=True)
        torch.testing.assert_close(
            roi_align_rotated(features, rois, (5, 7), 0.125, sampling), expected, atol=1e-4, rtol=1e-4
        )


def test_a_quarter_turn_of_map_and_region_changes_nothing() -> None:
    features = torch.randn(1, 2, 16, 16, dtype=torch.float64)
    rois = torch.tensor([[0, 9.0, 6.5, 8, 5, 20]], dtype=torch.float64)
    # counter-clockwise: (x, y) goes to (y, 16 - x)
    turned = torch.tensor([[0, 6.5, 16 - 9.0, 8, 5, 110]], dtype=torch.float64)
    expected = roi_align_rotated(features, rois)
    torch.testing.assert_close(roi_align_rotated(torch.rot90(features, 1, (2, 3)), turned), expected)


def test_columns_run_along_w_and_rows_along_h() -> None:
    ramp = torch.arange(32.0).expand(32, 32)  # grows along x
    features = torch.stack([ramp, ramp.T])[None]
    columns, rows = roi_align_rotated(features, torch.tensor([[0, 16.0, 16, 14, 7, 0]]), 7)[0]
    torch.testing.assert_close(columns, (torch.arange(7) * 2.0 + 9.5).expand(7, 7))
    torch.testing.assert_close(rows, (torch.arange(7) + 12.5).expand(7, 7).T)
    # w runs upwards: y falls along the columns
    up = roi_align_rotated(features, torch.tensor([[0, 16.0, 16, 14, 7, 90]]), 7)[0, 1]
    torch.testing.assert_close(up, (torch.arange(7) * -2.0 + 21.5).expand(7, 7))


@pytest.mark.parametrize("sampling", [2, 0])
def test_gradients_go_to_the_features_and_are_right(sampling: int) -> None:
    features = torch.randn(2, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor(
        [[0, 20.0, 22, 30, 12, 25], [1, 2, 3, 20, 40, -70], [1, 38, 46, 16, 8, 5]],
        dtype=torch.float64,
        requires_grad=True,
    )
    assert torch.autograd.gradcheck(
        lambda f: roi_align_rotated(f, rois.detach(), 3, 0.125, sampling), features
    )
    roi_align_rotated(features, rois, 3, 0.125, sampling).sum().backward()
    assert rois.grad is None


@pytest.mark.parametrize("sampling", [2, 0])
def test_no_regions_no_features(sampling: int) -> None:
    features = torch.randn(2, 3, 8, 8, requires_grad=True)
    found = roi_align_rotated(features, torch.zeros(0, 6), (3, 4), sampling_ratio=sampling)
    assert found.shape == (0, 3, 3, 4)
    found.sum().backward()
    assert features.grad is not None
    assert not features.grad.any()


@pytest.mark.parametrize("sampling", [2, 0])
def test_regions_off_the_map_empty_or_not_finite_give_nothing_odd(sampling: int) -> None:
    features = torch.randn(1, 3, 8, 8)
    rois = torch.tensor(
        [
            [0, 500.0, 4, 6, 3, 10],
            [0, math.nan, 4, 6, 3, 10],
            [0, 4, 4, math.nan, 3, 10],
            [0, 3, 4, 0, 0, 10],
            [0, 4, 4, 4, 4, 0],
        ]
    )
    found = roi_align_rotated(features, rois, 2, 1.0, sampling)
    assert not found[:3].any()
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[4:], slow.roi_align(features, rois[4:], (2, 2), 1.0, sampling))
    if sampling:  # all samples of an empty region are at its centre
        torch.testing.assert_close(
            found[3], slow.bilinear(features[0], 2.5, 3.5)[:, None, None].expand(3, 2, 2)
        )


def test_low_precision_is_computed_in_float32() -> None:
    features = torch.randn(1, 4, 32, 32).bfloat16().requires_grad_()
    rois = torch.tensor([[0, 1000.0, 1003, 400, 100, 33]])  # bf16 has steps of 4 to 8 at such positions
    expected = roi_align_rotated(features.detach().float(), rois, 7, 1 / 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = roi_align_rotated(features, rois, 7, 1 / 64)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    found.sum().backward()
    assert features.grad is not None
    assert features.grad.dtype == torch.bfloat16


def test_memory_layout_changes_nothing() -> None:
    features, rois = (
        torch.randn(2, 8, 16, 16),
        torch.cat([torch.tensor([[0.0], [1]]), slow.scattered(2, 16, 3)], 1),
    )
    torch.testing.assert_close(
        roi_align_rotated(features.to(memory_format=torch.channels_last), rois),
        roi_align_rotated(features, rois),
    )


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"rois \[n, 6\].*\(2, 5\)"):
        roi_align_rotated(torch.zeros(1, 1, 4, 4), torch.zeros(2, 5))
