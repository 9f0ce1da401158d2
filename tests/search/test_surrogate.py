"""The expected gain against what it stands for, and the model that it is asked of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbf_ray.reports.pareto import hypervolume
from dbf_ray.search.surrogate import Surrogate, expected_gain, staircase

REFERENCE = (0.1, 1.1)
shares = st.floats(0, 1, width=32)


def gain(cost: float, mean: float, deviation: float, points: list[tuple[float, float]]) -> float:
    """``points``: (cost, accuracy)."""
    steps = staircase([cost for cost, _ in points], [accuracy for _, accuracy in points])
    one = (np.array([cost]), np.array([mean]), np.array([deviation]))
    return float(expected_gain(*one, steps, REFERENCE)[0])


def gained(accuracy: float, cost: float, points: list[tuple[float, float]]) -> float:
    """Of the hypervolume, by one more point; neither knows of points behind the reference."""
    before = [(one, other) for other, one in points]
    return hypervolume([*before, (accuracy, cost)], REFERENCE) - hypervolume(before, REFERENCE)


@settings(max_examples=100, deadline=None)
@given(cost=shares, mean=shares, points=st.lists(st.tuples(shares, shares), max_size=6))
def test_without_doubt_it_is_the_gain_in_hypervolume(
    cost: float, mean: float, points: list[tuple[float, float]]
) -> None:
    assert gain(cost, mean, 0.0, points) == pytest.approx(gained(mean, cost, points), abs=1e-9)


def test_it_is_what_chance_gains_on_average() -> None:
    chance = np.random.default_rng(0)
    points = [(0.3, 0.4), (0.5, 0.5), (0.9, 0.8), (0.7, 0.45)]
    for cost, mean, deviation in [(0.4, 0.45, 0.1), (0.2, 0.3, 0.2), (0.95, 0.75, 0.05), (0.6, 0.2, 0.3)]:
        drawn = chance.normal(mean, deviation, 4000)
        gains = np.array([gained(float(one), cost, points) for one in drawn])
        error = gains.std() / np.sqrt(len(gains))
        assert abs(gain(cost, mean, deviation, points) - gains.mean()) < 4 * error


def test_nothing_is_gained_beyond_the_reference_nor_where_it_is_dominated_for_certain() -> None:
    assert gain(1.1, 0.9, 0.2, []) == gain(1.5, 0.9, 0.2, [(0.3, 0.4)]) == 0
    assert gain(0.5, 0.4, 0.0, [(0.3, 0.4)]) == pytest.approx(0, abs=1e-9)
    assert gain(0.5, 0.4, 0.1, [(0.3, 0.4)]) > 0


def test_the_model_knows_a_trend_where_it_is_and_doubts_where_it_is_not() -> None:
    chance = np.random.default_rng(0)
    points = chance.uniform(size=(20, 4)) * [1, 1, 1, 0.3]
    values = 0.3 + 0.4 * points[:, 0] + 0.1 * points[:, 1] ** 2 + chance.normal(0, 0.005, 20)
    model = Surrogate(points, values)
    there = chance.uniform(size=(50, 4)) * [1, 1, 1, 0.3]
    mean, deviation = model.predict(there)
    assert np.abs(mean - (0.3 + 0.4 * there[:, 0] + 0.1 * there[:, 1] ** 2)).mean() < 0.02
    away = np.array([[3.0, 3.0, 3.0, 3.0]])
    assert model.predict(away)[1][0] > 2 * deviation.mean()
    believed = model.believing(there[:1])
    assert believed.predict(there[:1])[0] == pytest.approx(mean[:1], abs=1e-3)
    assert believed.predict(there[:1])[1][0] < deviation[0]


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.2, 0.7]])
def test_few_and_equal_values_make_a_model(values: list[float]) -> None:
    model = Surrogate([[float(place)] for place in range(len(values))], values, noise=0.01)
    assert np.isfinite(model.predict([[0.0], [0.5]])).all()
    assert model.means() == pytest.approx(values, abs=0.1)
