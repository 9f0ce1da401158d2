"""Arithmetic of the trade-off between an accuracy (more is better) and a cost (less is better).

A point is (accuracy, cost). It *dominates* another if it is no worse in both and better in one; the
*front* is what no point dominates (K. Deb, "Multi-Objective Optimization using Evolutionary Algorithms",
2001, definitions 2.5 and 2.6). Equal points do not dominate each other, so all copies are on the front. A
point with a missing or non-finite value is on no front and spans nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dbf_ray.errors import ConfigError

Point = Sequence[float | None]
_TIE = 1e-12
MARGIN = 0.1  # of the range, by which the reference lies behind the worst point


class Reference(NamedTuple):
    """What a study's hypervolume is measured from, and in.

    Attributes:
        worst: (accuracy, cost) behind the worst of some points in both.
        ideal: (accuracy, cost) of the best of these points in each.
    """

    worst: tuple[float, float]
    ideal: tuple[float, float]

    @property
    def area(self) -> float:
        """Of the rectangle between the two."""
        return (self.ideal[0] - self.worst[0]) * (self.worst[1] - self.ideal[1])


def reference_of(points: Sequence[tuple[float, float]]) -> Reference:
    """The reference of finite points: their nadir and a tenth of their range, so that all of them count (H.
    Ishibuchi et al., "How to Specify a Reference Point in Hypervolume Calculation for Fair Performance
    Comparison", Evolutionary Computation 26, 2018). Where all are equal in a value, a tenth of that.

    Raises:
        ConfigError: there is no point, or one is not finite.
    """
    values = _array(points)
    if not len(values) or not np.isfinite(values).all():
        raise ConfigError(f"a reference needs at least one point, all of them finite, got {list(points)!r}")
    low, high = values.min(0), values.max(0)
    span = np.where(high > low, high - low, np.where(high != 0, abs(high), 1.0))
    return Reference(
        (float(low[0] - MARGIN * span[0]), float(high[1] + MARGIN * span[1])),
        (float(high[0]), float(low[1])),
    )


def share_of_ideal(points: Sequence[Point], reference: Reference) -> float:
    """Hypervolume of ``points`` in that of the reference's ideal, so free of both units: 1 is a setting as
    accurate as the most accurate and as cheap as the cheapest point that the reference was made of; 0 one
    that is no better than ``worst`` in both; more than 1 where settings are better still.
    """
    return hypervolume(points, reference.worst) / reference.area


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices, ascending, of the points that no other point dominates.

    Args:
        points: (accuracy, cost) each; the first is maximised, the second minimised.

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
    """Area that the points dominate within the quadrant that ``reference`` = (accuracy, cost) bounds.

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
            "a knee needs at least one point with finite accuracy and cost, got none among "
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
    """Corners (cost, accuracy) of the border of what the front dominates, cheapest first, to be drawn
    as a line.

    Between two front points the border keeps the accuracy of the cheaper one. With a reference it starts at
    that accuracy under the cheapest point and ends at that cost; without, it joins the front's
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
            raise ConfigError(f"a point must be (accuracy, cost), got {tuple(point)!r} (point {index})")
        rows.append([math.nan if value is None else float(value) for value in point])
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _reference(reference: Sequence[float]) -> tuple[float, float]:
    values = _array([reference])[0]
    if not np.isfinite(values).all():
        raise ConfigError(
            f"the reference point must be two finite numbers (accuracy, cost), got {tuple(reference)!r}"
        )
    return float(values[0]), float(values[1])
