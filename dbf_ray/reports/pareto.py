"""Arithmetic of the trade-off between accuracy (more is better) and training compute (less is better).

A point is (map50, compute_ratio). It *dominates* another if it is no worse in both and better in one; the
*front* is what no point dominates (K. Deb, "Multi-Objective Optimization using Evolutionary Algorithms",
2001, definitions 2.5 and 2.6). Equal points do not dominate each other, so all copies are on the front. A
point with a missing or non-finite value is on no front and spans nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dbf_ray.errors import ConfigError

Point = Sequence[float | None]
_TIE = 1e-12


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices, ascending, of the points that no other point dominates.

    Args:
        points: (map50, compute_ratio) each; the first is maximised, the second minimised.

    Raises:
        ConfigError: a point does not have two numbers.
    """
    values = _array(points)
    finite = np.flatnonzero(np.isfinite(values).all(1))
    # cheapest first; of equally cheap ones the most accurate
    order = finite[np.lexsort((-values[finite, 0], values[finite, 1]))]
    front: list[int] = []
    best = -math.inf
    for index in order.tolist():
        accuracy = values[index, 0]
        if accuracy > best or (front and np.array_equal(values[index], values[front[-1]])):
            front.append(index)
            best = accuracy
    return sorted(front)


def hypervolume(points: Sequence[Point], reference: Sequence[float]) -> float:
    """Area that the points dominate within the quadrant that ``reference`` = (map50, compute_ratio) bounds.

    The S-metric of Zitzler and Thiele ("Multiobjective optimization using evolutionary algorithms - a
    comparative case study", PPSN V, 1998) in two dimensions. Points that are not better than the reference in
    both values add nothing.

    Raises:
        ConfigError: the reference is not finite, or a point does not have two numbers.
    """
    floor, budget = _reference(reference)
    values = _array(points)
    total, best = 0.0, floor
    front = pareto_front(points)
    for accuracy, cost in sorted(
        (values[index].tolist() for index in front), key=lambda point: (point[1], -point[0])
    ):
        if cost < budget and accuracy > best:
            total += (accuracy - best) * (budget - cost)
            best = accuracy
    return total


def knee_point(points: Sequence[Point]) -> int:
    """Index of the front's knee: the point that bulges furthest from the straight line between the front's
    two ends.

    Both values are first scaled to [0, 1] over the front, so the answer does not depend on their units (I.
    Das, "On characterizing the 'knee' of the Pareto curve based on normal-boundary intersection", Structural
    Optimization 18, 1999). If nothing bulges (one or two points, or a front that is straight or hollow) it is
    the most accurate point; of equal points the first.

    Raises:
        ConfigError: no point is finite, or a point does not have two numbers.
    """
    values = _array(points)
    front = pareto_front(points)
    if not front:
        raise ConfigError(
            "a knee needs at least one point with finite map50 and compute_ratio, got none among "
            f"{len(values)} points"
        )
    low, high = values[front].min(0), values[front].max(0)
    span = np.where(high > low, high - low, 1.0)
    scaled = (values - low) / span
    ranked = sorted(front, key=lambda index: -values[index, 0])  # stable: equal points stay in order
    # 0 at both ends; the distance times the square root of 2
    bulges = [float(scaled[index, 0] - scaled[index, 1]) for index in ranked]
    most = max(bulges)
    if most <= bulges[0] + _TIE:
        return ranked[0]
    return next(index for index, bulge in zip(ranked, bulges, strict=True) if bulge >= most - _TIE)


def staircase(points: Sequence[Point], reference: Sequence[float] | None = None) -> list[tuple[float, float]]:
    """Corners (compute_ratio, map50) of the border of what the front dominates, cheapest first, to be drawn
    as a line.

    Between two front points the border keeps the accuracy of the cheaper one. With a reference it starts at
    that accuracy under the cheapest point and ends at that compute_ratio; without, it joins the front's
    points only.
    """
    values = _array(points)
    front = sorted(
        {tuple(values[index].tolist()) for index in pareto_front(points)}, key=lambda point: point[1]
    )
    corners: list[tuple[float, float]] = []
    if reference is not None:
        floor, budget = _reference(reference)
        front = [point for point in front if point[0] > floor and point[1] < budget]
        if front:
            corners.append((front[0][1], floor))
    for accuracy, cost in front:
        if len(corners) and corners[-1][0] != cost:
            corners.append((cost, corners[-1][1]))
        corners.append((cost, accuracy))
    if reference is not None and front:
        corners.append((budget, corners[-1][1]))
    return corners


def _array(points: Sequence[Point]) -> NDArray[np.float64]:
    rows = []
    for index, point in enumerate(points):
        if len(point) != 2:
            raise ConfigError(f"a point must be (map50, compute_ratio), got {tuple(point)!r} (point {index})")
        rows.append([math.nan if value is None else float(value) for value in point])
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _reference(reference: Sequence[float]) -> tuple[float, float]:
    values = _array([reference])[0]
    if not np.isfinite(values).all():
        raise ConfigError(
            f"the reference point must be two finite numbers (map50, compute_ratio), got {tuple(reference)!r}"
        )
    return float(values[0]), float(values[1])
