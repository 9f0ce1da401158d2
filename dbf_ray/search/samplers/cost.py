"""The sampler ``cost``: what a setting costs is known, so that only its accuracy has to be guessed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dbf_ray.search.samplers.base import Candidate, Facts, Sampler, Told
from dbf_ray.search.states import deepest
from dbf_ray.search.surrogate import Surrogate, expected_gain, staircase

FIRST = 2  # trained before there is a model
MOST = 200  # trained settings that the model sees
SHAPED = 40  # trained settings up to which its shape is chosen each time, then for each fifth more
MARGIN = 0.1  # of the range, between the worst and the reference


class Cost(Sampler):
    """The setting with the largest expected gain in hypervolume for each epoch that it takes: the gain is
    exact given the model, since the cost is known (Olofsson et al. 2019, doi 10.1109/TBME.2018.2855404, mix
    known and unknown objectives so). Trainings that run are believed to end where the model says.

    Args:
        seed: not used: nothing is left to chance.
        noise: least standard deviation of an accuracy, as repeated seeds show it.
    """

    name: ClassVar[str] = "cost"

    def __init__(self, seed: int = 0, noise: float = 0.0) -> None:
        super().__init__(seed)
        self._noise = noise
        self._shape: tuple[int, tuple[float, float]] | None = None  # chosen of so many

    @staticmethod
    def why_not(facts: Facts) -> str | None:
        """Why it cannot serve a space."""
        if (one := facts.unknown) is None:
            return None
        if not one.features:
            return f"must know when a setting trains, which policy {one.setting.policy} decides while it does"
        return "must know what each setting costs before it is trained, which this `search.cost` does not say"

    def next(
        self,
        pool: Sequence[Candidate],
        told: Sequence[Told],
        running: Sequence[Candidate],
        have: Collection[str],
    ) -> int | None:
        """See :class:`.base.Sampler`."""
        told = [one for one in told if one.candidate.features]
        running = [one for one in running if one.features and one.cost is not None]
        if not pool:
            return None
        if len(told) < FIRST:
            return _farthest(pool, [*(one.candidate for one in told), *running])
        left = [_epochs(one, have) for one in pool]
        scores = self.gains(pool, told, running) / (np.array(left) + 1)
        # where nothing is expected any more: what is soonest done
        return max(range(len(pool)), key=lambda place: (scores[place], -left[place]))

    def gains(
        self, pool: Sequence[Candidate], told: Sequence[Told], running: Sequence[Candidate] = ()
    ) -> npt.NDArray[np.float64]:
        """Expected gain in hypervolume of each of ``pool``."""
        told = _seen(told)
        known = None if self._shape is None or len(told) <= SHAPED else self._shape
        fits = known is not None and known[0] <= len(told) < 1.2 * known[0]
        model = Surrogate(
            [one.candidate.features for one in told],
            [one.accuracy for one in told],
            self._noise,
            shape=known[1] if known is not None and fits else None,
        )
        if not fits:
            self._shape = len(told), model.shape
        if running:
            model = model.believing([one.features for one in running])
        known_costs = [*(one.cost for one in told), *(_cost(one) for one in running)]
        believed = model.means()
        costs = np.array([_cost(one) for one in pool])
        reference = (_behind(believed, low=True), _behind([*known_costs, *costs], low=False))
        means, deviations = model.predict([one.features for one in pool])
        return expected_gain(costs, means, deviations, staircase(known_costs, believed), reference)


def _seen(told: Sequence[Told]) -> Sequence[Told]:
    """What the model sees of many: the front, and of the others some at all costs."""
    if len(told) <= MOST:
        return told
    by_cost = sorted(told, key=lambda one: (one.cost, -one.accuracy))
    best = [*itertools.accumulate((one.accuracy for one in by_cost), max)]
    front = [place for place, one in enumerate(by_cost) if place == 0 or one.accuracy > best[place - 1]]
    others = [place for place in range(len(by_cost)) if place not in set(front)]
    room = max(MOST - len(front), 0)
    spread = [others[step * len(others) // room] for step in range(room)]
    return [by_cost[place] for place in sorted({*front, *spread})]


def _cost(one: Candidate) -> float:
    return math.inf if one.cost is None else one.cost


def _behind(values: Sequence[float] | npt.NDArray[np.float64], low: bool) -> float:
    least, most = float(min(values)), float(max(values))
    margin = MARGIN * (most - least or 1.0)
    return least - margin if low else most + margin


def _epochs(one: Candidate, have: Collection[str]) -> int:
    """Epochs that it still takes."""
    names = one.setting.states
    return len(names) - 1 - deepest(names, have)


def _farthest(pool: Sequence[Candidate], known: Sequence[Candidate]) -> int:
    """The place of the setting that is least like those known; without any the dearest."""
    if not known:
        return max(range(len(pool)), key=lambda place: pool[place].cost or 0.0)
    points = np.array([one.features for one in known])
    away = [float(np.min(np.linalg.norm(points - np.array(one.features), axis=1))) for one in pool]
    return int(np.argmax(away))
