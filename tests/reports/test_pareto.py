"""Front, hypervolume and knee against closed forms, a brute-force witness and a fine grid."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.errors import ConfigError
from dbf_ray.reports import hypervolume, knee_point, pareto_front, staircase
from dbf_ray.reports.pareto import reference_of, share_of_ideal

STUDY = [(0.64, 1.0), (0.30, 0.58), (0.61, 0.62), (0.55, 0.60), (0.50, 0.80)]
REFERENCE = (0.29, 1.0)

numbers = st.one_of(
    st.integers(0, 10).map(lambda value: value / 10),
    st.floats(0, 1.2),
    st.sampled_from([math.nan, math.inf, None]),
)
points_of = st.lists(st.tuples(numbers, numbers), max_size=12)
Points = list[tuple[float | None, float | None]]


def finite(point: tuple[float | None, float | None]) -> bool:
    return all(value is not None and math.isfinite(value) for value in point)


def brute_force_front(points: Points) -> list[int]:
    known = [
        (index, point[0], point[1])
        for index, point in enumerate(points)
        if point[0] is not None and point[1] is not None and finite(point)
    ]
    return [i for i, a, c in known if not any(m >= a and n <= c and (m > a or n < c) for _, m, n in known)]


def test_front_of_a_small_study() -> None:
    assert pareto_front(STUDY) == [0, 1, 2, 3]


@given(points_of)
def test_front_equals_brute_force(points: Points) -> None:
    assert pareto_front(points) == brute_force_front(points)


def test_missing_values_are_on_no_front_and_copies_share_it() -> None:
    assert pareto_front(
        [
            (math.nan, 0.1),
            (None, 0.1),
            (0.9, math.inf),
            (math.inf, 0.5),
            (0.5, 0.5),
            (0.5, 0.5),
            (0.4, 0.5),
            (0.5, 0.6),
        ]
    ) == [4, 5]
    assert pareto_front([]) == []


def test_hypervolume_of_a_small_study() -> None:
    expected = (0.30 - 0.29) * (1 - 0.58) + (0.55 - 0.30) * (1 - 0.60) + (0.61 - 0.55) * (1 - 0.62)
    assert hypervolume(STUDY, REFERENCE) == pytest.approx(expected)


def test_hypervolume_of_one_point_is_a_rectangle_and_of_none_zero() -> None:
    assert hypervolume([(0.8, 0.5)], (0.2, 1.0)) == pytest.approx(0.6 * 0.5)
    assert hypervolume([], (0.2, 1.0)) == 0.0
    assert hypervolume([(0.8, 1.0), (0.2, 0.5), (0.1, 1.4), (math.nan, 0.1)], (0.2, 1.0)) == 0.0


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=10),
    st.integers(0, 6),
    st.integers(4, 12),
)
def test_hypervolume_equals_counting_cells(cells: list[tuple[int, int]], floor: int, budget: int) -> None:
    """On integer points the dominated area is the number of unit cells below and right of some point."""
    grid = np.zeros((12, 12), dtype=bool)  # cell (i, j) covers map50 in [i, i + 1], cost in [j, j + 1]
    for accuracy, cost in cells:
        grid[:accuracy, cost:] = True
    expected = int(grid[floor:, :budget].sum())
    assert hypervolume(
        [(float(a), float(c)) for a, c in cells], (float(floor), float(budget))
    ) == pytest.approx(expected)


@given(points_of, st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_another_point_never_shrinks_the_hypervolume(points: Points, extra: tuple[float, float]) -> None:
    before = hypervolume(points, (0.1, 1.0))
    after = hypervolume([*points, extra], (0.1, 1.0))
    assert before - 1e-12 <= after <= before + hypervolume([extra], (0.1, 1.0)) + 1e-12


def test_knee_is_where_the_front_bulges_most() -> None:
    assert knee_point(STUDY) == 2
    assert knee_point([(0.0, 0.0), (0.5, 0.1), (1.0, 1.0)]) == 1


def test_knee_equals_the_distance_from_the_line_between_the_ends() -> None:
    """Witness: perpendicular distance by the cross product, in scaled coordinates, over random bulging
    fronts.
    """
    rng = random.Random(3)
    for _ in range(50):
        costs = sorted(rng.uniform(0.4, 1.0) for _ in range(8))
        points = [(0.7 * math.sqrt((cost - 0.3) / 0.7), cost) for cost in costs]
        a, b = np.array([0.0, 0.0]), np.array([1.0, 1.0])
        scaled = [
            np.array(
                [
                    (cost - costs[0]) / (costs[-1] - costs[0]),
                    (m - points[0][0]) / (points[-1][0] - points[0][0]),
                ]
            )
            for m, cost in points
        ]
        distances = [abs((b - a)[0] * (p - a)[1] - (b - a)[1] * (p - a)[0]) / math.sqrt(2) for p in scaled]
        assert knee_point(points) == int(np.argmax(distances))


def test_knee_without_a_bulge_is_the_most_accurate() -> None:
    assert knee_point([(0.2, 0.5), (0.6, 1.0)]) == 1
    assert knee_point([(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)]) == 2
    assert knee_point([(0.0, 0.0), (0.1, 0.5), (1.0, 1.0)]) == 2
    assert knee_point([(0.3, 0.7), (0.3, 0.7)]) == 0


@given(points_of.filter(lambda points: any(map(finite, points))))
def test_knee_is_on_the_front_whatever_the_units(points: Points) -> None:
    assert knee_point(points) in pareto_front(points)
    integers = [
        (round(10 * p[0]), round(10 * p[1]))
        for p in points
        if p[0] is not None and p[1] is not None and finite(p)
    ]
    scaled = [(a * 2.0**10, c * 0.25) for a, c in integers]  # powers of two: exact
    assert knee_point(scaled) == knee_point(integers)


def test_staircase_steps_up_to_each_front_point() -> None:
    points = [(0.3, 0.5), (0.6, 0.8), (0.2, 0.9)]
    assert staircase(points) == [(0.5, 0.3), (0.8, 0.3), (0.8, 0.6)]
    assert staircase(points, (0.1, 1.0)) == [(0.5, 0.1), (0.5, 0.3), (0.8, 0.3), (0.8, 0.6), (1.0, 0.6)]
    assert staircase([], (0.1, 1.0)) == []
    assert staircase([(0.05, 0.5)], (0.1, 1.0)) == []


@given(points_of)
def test_area_under_the_staircase_is_the_hypervolume(points: Points) -> None:
    corners = staircase(points, (0.1, 1.0))
    area = sum((x1 - x0) * ((y0 + y1) / 2 - 0.1) for (x0, y0), (x1, y1) in itertools.pairwise(corners))
    assert area == pytest.approx(hypervolume(points, (0.1, 1.0)), abs=1e-12)


def test_refuses_bad_input() -> None:
    with pytest.raises(ConfigError, match=r"a point must be \(accuracy, cost\), got \(0.5,\) \(point 1\)"):
        pareto_front([(0.1, 0.2), (0.5,)])
    with pytest.raises(ConfigError, match="two finite numbers"):
        hypervolume(STUDY, (math.nan, 1.0))
    with pytest.raises(ConfigError, match="point with finite accuracy and cost, got none among 1 points"):
        knee_point([(math.nan, 1.0)])
    with pytest.raises(ConfigError, match="a reference needs at least one point, all of them finite"):
        reference_of([])


@given(points_of, st.floats(0.1, 1e6), st.floats(0.1, 1e6))
def test_a_share_of_the_ideal_has_no_units(points: Points, accuracy: float, cost: float) -> None:
    spanned = [(0.7, 1.0), (0.3, 0.6)]
    scaled = [[(a and a * accuracy, c and c * cost) for a, c in some] for some in (points, spanned)]
    share = share_of_ideal(points, reference_of(spanned))
    assert share_of_ideal(scaled[0], reference_of(scaled[1])) == pytest.approx(share, abs=1e-9)


def test_what_a_share_of_the_ideal_means() -> None:
    reference = reference_of([(0.7, 1.0), (0.3, 0.6)])
    assert reference.worst == pytest.approx((0.26, 1.04))
    assert share_of_ideal([(0.7, 0.6)], reference) == pytest.approx(1.0)
    assert share_of_ideal([(0.7, 1.0)], reference) == pytest.approx(0.04 * 0.44 / 0.44**2)  # full adds
    assert share_of_ideal([(0.7, 1.0), (0.3, 0.6)], reference) == pytest.approx(0.21 / 1.21)
    assert share_of_ideal([(0.26, 0.3), (0.9, 1.04)], reference) == 0.0
    alone = reference_of([(0.0, 1.0)])  # a range of nothing, and an accuracy of 0
    assert alone.worst == pytest.approx((-0.1, 1.1))
    assert share_of_ideal([(0.0, 1.0)], alone) == 1.0
