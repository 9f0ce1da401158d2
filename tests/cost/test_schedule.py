from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.cost.schedule import analytic_ratio, compute_ratio
from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies import make_policy

FLOPS = [300, 260, 220, 180, 100]


@pytest.mark.parametrize(
    ("prefixes", "always", "ratio"),
    [
        ([0], 0, 1.0),
        ([0, 0, 0], 0, 1.0),
        ([4, 4], 0, 1 / 3),
        ([0, 4, 4], 0, 500 / 900),
        ([0, 4, 2, 1], 1, (260 + 100 + 220 + 260) / (4 * 260)),
        ([0, 1, 4], 4, 1.0),
    ],
)
def test_ratios_worked_out_by_hand(prefixes: list[int], always: int, ratio: float) -> None:
    assert compute_ratio(prefixes, FLOPS, always) == pytest.approx(ratio, abs=1e-15)


def test_weights_are_the_sizes_of_blocks() -> None:
    assert compute_ratio([0, 4], FLOPS, weights=[3, 1]) == pytest.approx((3 * 300 + 100) / (4 * 300))
    assert compute_ratio([0, 4], FLOPS, weights=[2, 2]) == compute_ratio([0, 4], FLOPS)


@given(st.integers(1, 40), st.integers(1, 40))
def test_step_has_its_closed_form(epochs: int, rho: int) -> None:
    trained = -(-epochs // rho)
    ratio = compute_ratio(make_policy("step", rho=rho).decisions(epochs, 4), FLOPS)
    assert ratio == pytest.approx((trained * 300 + (epochs - trained) * 100) / (epochs * 300), abs=1e-12)


@given(st.lists(st.integers(0, 4), min_size=1), st.integers(0, 4))
def test_ratios_lie_between_the_lowest_and_one(prefixes: list[int], always: int) -> None:
    lowest = compute_ratio([4], FLOPS, always)
    assert lowest <= compute_ratio(prefixes, FLOPS, always) + 1e-12 <= 1 + 2e-12
    assert lowest == 100 / FLOPS[always]


@pytest.mark.parametrize(
    ("prefixes", "flops", "always", "weights", "words"),
    [
        ([], FLOPS, 0, None, "at least one epoch, with prefixes in 0..4, got no epochs"),
        ([0, 5], FLOPS, 0, None, "prefixes in 0..4, got 5"),
        ([0, -1], FLOPS, 0, None, "prefixes in 0..4, got -1"),
        ([0], FLOPS, 7, None, "prefixes in 0..4, got 7"),
        ([0], [0, 0], 0, None, "more than 0 FLOPs an image, got 0"),
        ([0, 1], FLOPS, 0, [1], r"one number >= 0 for each of its 2 epochs, not all 0, got \[1\]"),
        ([0, 1], FLOPS, 0, [0, 0], "not all 0"),
        ([0, 1], FLOPS, 0, [2, -1], "one number >= 0"),
    ],
)
def test_impossible_schedules_are_refused(
    prefixes: Any, flops: Any, always: int, weights: Any, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        compute_ratio(prefixes, flops, always, weights)


@pytest.mark.parametrize(
    ("share", "always", "ceiling"),
    [(0.395, 0.19, 1.29), (0.419, 0.19, 1.31), (0.437, 0, 1.41), (0.630, 0, 1.72)],
)
def test_published_ceilings(share: float, always: float, ceiling: float) -> None:
    """Speed-up ceilings computed elsewhere for four detectors."""
    ratio = analytic_ratio([2], share, [0.0, always, 1.0], always_frozen=1)
    assert 1 / ratio == pytest.approx(ceiling, abs=0.012)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.floats(0.01, 0.99), st.floats(0, 0.9))
def test_the_analytic_ratio_follows_from_backward_being_twice_forward(
    frozen: list[bool], b: float, p: float
) -> None:
    full, still, share = 1 + 2 * (1 - b * p), 1 + 2 * (1 - b), sum(frozen) / len(frozen)
    ratio = analytic_ratio([2 if is_frozen else 0 for is_frozen in frozen], b, [0.0, p, 1.0], always_frozen=1)
    assert ratio == pytest.approx(1 - share * (full - still) / full, abs=1e-12)


def test_the_analytic_ratio_by_hand() -> None:
    # b = 1/2, stages of 1/4 and 3/4 of the backbone: prefixes cost 3, 3 - 1/4 and 3 - 1.
    assert analytic_ratio([0, 1, 2], 0.5, [0, 0.25, 1]) == pytest.approx((3 + 2.75 + 2) / 9)
    assert analytic_ratio([0, 2], 0.5, [0, 0.25, 1], weights=[3, 1]) == pytest.approx((9 + 2) / 12)
