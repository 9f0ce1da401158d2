"""Samplers as the replay drives them: those of :mod:`dbf_ray.search`, and TPE for a space of which only some
settings are recorded.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import optuna

from benchmarks.search.world import SPACE, World
from dbf_ray.errors import DbfRayError
from dbf_ray.freezing import make_policy
from dbf_ray.search.draws import Draws
from dbf_ray.search.optuna_study import DIRECTIONS
from dbf_ray.search.settings import Setting
from dbf_ray.search.spaces import load_space

TRIES = 10  # draws that may be known, as in a search
STARTUP = 10


class Sampler(Protocol):
    """Chooses the place in ``pool`` of what is trained next."""

    def next(
        self,
        pool: Sequence[Any],
        told: Sequence[Any],
        running: Sequence[Any],
        have: Collection[str],
    ) -> int | None:
        """See :mod:`dbf_ray.search`; None: nothing."""


Make = Callable[[World, int, int], Sampler]
"""(world, training seed, search seed) -> sampler."""


class RecordedTpe:
    """Optuna's TPE over the space itself, as a search asks it; what it draws stands for the recorded setting
    that trains most alike, epoch by epoch. Of a setting that is known it is told the result again.
    """

    def __init__(self, world: World, training_seed: int, seed: int) -> None:
        self._make, self._space = world.make[training_seed], load_space(SPACE)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        self._study = optuna.create_study(directions=list(DIRECTIONS), sampler=sampler)
        self._draws = Draws(self._space, "replay", [])
        self._open: dict[str, int] = {}
        self._lines: dict[str, np.ndarray] = {}

    def next(
        self, pool: Sequence[Any], told: Sequence[Any], running: Sequence[Any], have: Collection[str]
    ) -> int | None:
        """Ask Optuna."""
        results = {one.candidate.setting.key: [one.accuracy, one.cost] for one in told}
        for key in [key for key in self._open if key in results]:
            self._study.tell(self._open.pop(key), results[key])
        if not pool:
            return None
        for last in range(TRIES):
            trial = self._study.ask()
            try:
                drawn = self._make.make(self._draws.overrides(trial, self._make.config))
            except DbfRayError:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            if drawn.key in results and last + 1 < TRIES:
                self._study.tell(trial, results[drawn.key])
                continue
            line = self._line(drawn)
            place = int(np.argmin([np.abs(self._line(one.setting) - line).sum() for one in pool]))
            self._open[pool[place].setting.key] = trial.number
            return place
        return 0

    def _line(self, setting: Setting) -> np.ndarray:
        """How much of the backbone each epoch trains, by its stages' learning rates."""
        if setting.key not in self._lines:
            horizon = self._make.beginning(setting.config).horizon
            policy = make_policy(setting.config.freezing.policy, **setting.config.freezing.parameters)
            stages = horizon.num_stages
            self._lines[setting.key] = np.array(
                [
                    sum((one.lr_factors or (1.0,) * stages)[one.num_frozen :]) / stages
                    for one in policy.timeline(horizon)
                ]
            )
        return self._lines[setting.key]


def samplers() -> dict[str, Make]:
    """Those of :mod:`dbf_ray.search.samplers` by name, TPE as it can be replayed."""
    members = importlib.import_module("dbf_ray.search.samplers").SAMPLERS
    found = {name: _Member(member) for name, member in members.items() if not member.draws}
    return {**found, "tpe": RecordedTpe}


def candidates_of(world: World, seed: int) -> Sequence[Any]:
    """The settings of a world as those samplers see them."""
    features = importlib.import_module("dbf_ray.search.features")
    costs = {one.key: float(cost) for one, cost in zip(world.settings[seed], world.cost, strict=True)}
    made = features.Candidates(world.make[seed], world.settings[seed], lambda one: costs[one.key])
    return [made.of(one) for one in world.settings[seed]]


@dataclass(frozen=True)
class _Member:
    """Makes a sampler of the project for a search."""

    member: Callable[[int], Sampler]

    def __call__(self, world: World, training_seed: int, seed: int) -> Sampler:
        return self.member(seed)
