"""What many replayed searches come to: interquartile means with paired bootstrap intervals over (search seed,
training seed), and how honest a search's own uncertainty is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.search.replay import Step
from benchmarks.search.world import World
from dbf_ray.reports.pareto import pareto_front

RESAMPLES = 2000
TRIM = 0.25  # of each end: what is left is the interquartile range
Array = NDArray[np.float64]
Pair = tuple[int, int]
"""(training seed, search seed)."""


def iqm(values: Array, axis: int = -1) -> Any:
    """Interquartile mean."""
    return stats.trim_mean(values, TRIM, axis=axis)


def interval(values: Sequence[float]) -> dict[str, float]:
    """IQM with its 95 % percentile bootstrap interval."""
    array = np.asarray(values, dtype=float)
    low = high = middle = float(iqm(array))
    if len(array) > 1 and np.ptp(array) > 0:
        found = stats.bootstrap(
            (array,), iqm, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return {"iqm": middle, "low": low, "high": high}


def paired(one: Mapping[Pair, float], other: Mapping[Pair, float]) -> dict[str, float]:
    """Interval of the differences of what two ways gave with the same seeds."""
    return interval([one[pair] - other[pair] for pair in sorted({*one} & {*other})])


def score_at(steps: Sequence[Step], scores: Sequence[float], epochs: int) -> float:
    """The score once so many epochs were trained; 0 before the baselines are told."""
    before = [score for step, score in zip(steps, scores, strict=True) if step.epochs <= epochs]
    return before[-1] if before else 0.0


def epochs_to(steps: Sequence[Step], scores: Sequence[float], goal: float) -> float:
    """Epochs after which the score is ``goal`` for the first time; infinite where it never is."""
    reached = [step.epochs for step, score in zip(steps, scores, strict=True) if score >= goal]
    return float(reached[0]) if reached else math.inf


@dataclass(frozen=True)
class Band:
    """What a search says of one setting that it has trained.

    Attributes:
        low, high: a 90 % interval of its map50.
        p_front: the probability of its being on the front of what is trained.
    """

    low: float
    high: float
    p_front: float


Answer = Callable[[World, int, Sequence[int]], Sequence[Band]]
"""(world, training seed, settings that are trained) -> a band for each of them."""


def honesty(world: World, seed: int, told: Sequence[int], answer: Answer) -> dict[str, float]:
    """``coverage``: share of the bands that hold the true value; ``brier``: mean squared error of the
    probabilities of being on the front, 0 the best; ``base_rate``: share that is on it.
    """
    truth, bands = world.truth(seed), answer(world, seed, told)
    on = {
        told[place] for place in pareto_front([(float(truth[one]), float(world.cost[one])) for one in told])
    }
    held = [band.low <= truth[one] <= band.high for one, band in zip(told, bands, strict=True)]
    errors = [(band.p_front - (one in on)) ** 2 for one, band in zip(told, bands, strict=True)]
    return {
        "coverage": float(np.mean(held)),
        "brier": float(np.mean(errors)),
        "base_rate": len(on) / len(told),
    }
