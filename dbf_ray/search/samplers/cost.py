"""The sampler ``cost``: what a setting costs is known, so that only its accuracy has to be guessed."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dbf_ray.search.samplers.base import Candidate, Facts, Sampler, Told
from dbf_ray.search.states import deepest
from dbf_ray.search.surrogate import Surrogate, expected_gain, staircase

FIRST = 2  # trained before there is a model
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
        model = Surrogate(
            [one.candidate.features for one in told], [one.accuracy for one in told], self._noise
        )
        if running:
            model = model.believing([one.features for one in running])
        known = [*(one.cost for one in told), *(_cost(one) for one in running)]
        believed = model.means()
        costs = np.array([_cost(one) for one in pool])
        reference = (_behind(believed, low=True), _behind([*known, *costs], low=False))
        means, deviations = model.predict([one.features for one in pool])
        return expected_gain(costs, means, deviations, staircase(known, believed), reference)


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
