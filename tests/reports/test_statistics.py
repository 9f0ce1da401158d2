"""The statistics of an answer: closed forms, and a slow plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dbf_ray.reports.pareto import knee_point, pareto_front
from dbf_ray.reports.statistics import (
    Measured,
    above_line,
    cheapest_within,
    draw,
    interval,
    knees,
    needed,
    on_front,
    posterior_means,
    two_way,
    within,
)


def normal(probability: float) -> float:
    """The normal distribution at a place: P(x < place)."""
    return 0.5 * (1 + math.erf(probability / 2**0.5))


@pytest.mark.parametrize("seed", range(4))
def test_fronts_and_knees_are_those_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, costs = rng.integers(0, 6, (9, 50)) / 6.0, rng.integers(1, 6, 9) / 5.0
    front, knee = on_front(values, costs), knees(values, costs)
    for column in range(values.shape[1]):
        points = list(zip(values[:, column].tolist(), costs.tolist(), strict=True))
        assert np.flatnonzero(front[:, column]).tolist() == pareto_front(points)
        (chosen,) = np.flatnonzero(knee[:, column])
        assert points[chosen] == points[knee_point(points)]


def test_two_settings_apart_by_images_alone() -> None:
    """Paired: what images do to both is no difference."""
    rng = np.random.default_rng(0)
    both, own = rng.normal(0, 0.05, 20_000), rng.normal(0, 0.01, 20_000)
    draws = draw(
        [
            Measured(1.0, {0: 0.60}, {0: 0.60 + both}),
            Measured(0.5, {0: 0.59}, {0: 0.59 + both + own}),
        ]
    )
    dearer_is_better = normal(0.01 / 0.01)
    assert on_front(draws.values, draws.costs).mean(1) == pytest.approx([dearer_is_better, 1.0], abs=0.01)
    assert within(draws.values, 0.02)[1] == pytest.approx(normal(0.01 / 0.01), abs=0.01)
    low, high = interval(draws.values[0])
    assert (low, high) == pytest.approx((0.60 - 1.645 * 0.05, 0.60 + 1.645 * 0.05), abs=0.003)
    assert cheapest_within(draws, 0.03, 0.9) == 1
    assert cheapest_within(draws, 0.015, 0.9) == 0
    assert cheapest_within(draws, 0.015, 0.999) is None
    # .84 of being within .02 becomes .9 where sd is .01 / 1.2816: 1.64 times as many images
    assert needed(draws, lambda more: cheapest_within(more, 0.02, 0.9) == 1) == {
        "images": 2,
        "seeds": None,
        "both": 2,
    }


def test_seeds_have_luck_in_common_and_luck_of_their_own() -> None:
    means, luck = np.array([0.5, 0.6, 0.7, 0.4]), np.array([-0.02, 0.0, 0.02])
    own = np.array([[1, -2, 1], [-1, 1, 0], [0, 1, -1], [0, 0, 0]]) * 0.003
    table = means[:, None] + luck + own
    each = [dict(enumerate(row)) for row in table.tolist()]
    found, effects, residuals, freedom = two_way(each)
    assert found == pytest.approx(means)
    assert effects == pytest.approx(luck)
    assert freedom == 3 * 2
    assert (residuals**2).sum() == pytest.approx((own**2).sum())
    # the last with its first seed alone, an unlucky one: as if its seed were the mean's
    found, _, _, freedom = two_way([*each[:3], {0: table[3, 0]}])
    assert found[:3] == pytest.approx(means[:3])
    assert found[3] == pytest.approx(0.4)
    assert freedom == 2 * 2
    assert two_way([{0: 0.5}, {0: 0.6}])[3] == 0
    assert two_way([{0: 0.5, 1: 0.7}, {0: 0.6}])[3] == 1  # seeds cannot be told from the setting


def test_draws_by_seeds_are_students() -> None:
    """With f degrees of freedom: the variance is s^2 / seeds x f / (f - 2)."""
    rng = np.random.default_rng(1)
    settings = [
        Measured(cost, dict(enumerate((0.5 + rng.normal(0, 0.02, 3)).tolist())), {})
        for cost in np.linspace(0.5, 1, 7)
    ]
    draws = draw(settings, draws=40_000)
    assert draws.freedom == 12
    assert draws.seed_sd is not None
    expected = draws.seed_sd**2 / 3 * 12 / 10
    assert draws.seeds.var(1) == pytest.approx(np.full(7, expected), rel=0.05)
    assert not draws.images.any()
    assert draws.values.mean(1) == pytest.approx(draws.center, abs=1e-3)


def test_the_line_of_controls() -> None:
    settings = [
        Measured(1.0, {0: 0.80}, {}),
        Measured(0.5, {0: 0.60}, {}),
        Measured(0.75, {0: 0.72}, {}),  # above the line's .70
        Measured(0.6, {0: 0.62}, {}),  # below .64
        Measured(0.3, {0: 0.61}, {}),  # cheaper than all controls and better than one
        Measured(0.3, {0: 0.55}, {}),  # nobody knows
        Measured(1.2, {0: 0.81}, {}),  # dearer than full: better than full itself
    ]
    draws = draw(settings, draws=4)
    probable, gain = above_line(draws, draws.costs, [0, 1])
    assert probable == [None, None, 1.0, 0.0, 1.0, None, 1.0]
    assert [None if one is None else round(one, 9) for one in gain] == [
        *(None, None, 0.02, -0.02, 0.01, None, 0.01),
    ]
    assert above_line(draws, draws.costs, [0])[0] == [None] * 7
    slow = np.where(draws.costs == 0.75, np.nan, draws.costs)
    assert above_line(draws, slow, [0, 1])[0][2] is None


def test_the_posterior_draws_a_lucky_one_back_and_leaves_what_is_certain() -> None:
    costs = np.linspace(0.6, 1.0, 9)
    truth = 0.5 + 0.2 * (costs - 0.6)
    rng = np.random.default_rng(3)
    errors = []
    for _ in range(20):
        seen = truth + rng.normal(0, 0.02, 9)
        noise = rng.normal(0, 0.02, (9, 2000))
        settings = [
            Measured(cost, {0: value}, {0: value + moved})
            for cost, value, moved in zip(costs, seen, noise, strict=True)
        ]
        draws = draw(settings)
        believed = posterior_means(draws)
        errors.append((((believed - truth) ** 2).mean(), ((seen - truth) ** 2).mean()))
    believed_error, seen_error = np.mean(errors, 0)
    assert believed_error < 0.7 * seen_error
    certain = draw([Measured(cost, {0: value}, {}) for cost, value in zip(costs, seen, strict=True)])
    assert posterior_means(certain) == pytest.approx(seen)


def test_intervals_cover_as_often_as_they_say() -> None:
    """Settings, seeds and images drawn anew: 90 % of the intervals of differences hold the truth."""
    rng = np.random.default_rng(7)
    held = []
    for _ in range(150):
        truth = np.array([0.6, 0.61, 0.59, 0.6])
        images = rng.normal(0, 0.01, 4)  # what these images do to each setting
        table = truth[:, None] + images[:, None] + rng.normal(0, 0.02, 3) + rng.normal(0, 0.012, (4, 3))
        moved = rng.normal(0, 0.01, (4, 1000))
        settings = [
            Measured(
                1.0 - 0.1 * row,
                dict(enumerate(table[row])),
                {s: table[row, s] + moved[row] for s in range(3)},
            )
            for row in range(4)
        ]
        values = draw(settings, seed=int(rng.integers(1 << 30))).values
        low, high = interval(values[1] - values[2])
        held.append(low <= truth[1] - truth[2] <= high)
    assert 0.84 <= np.mean(held) <= 0.96
