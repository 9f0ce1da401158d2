"""A small synthetic table with a known best, and searches' samplers that know nothing, or all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.record import nominal
from benchmarks.search.table import Row, append_rows, setting_text
from benchmarks.search.task import settings_of
from benchmarks.search.world import World, write_facts
from dbf_ray.config import Config, with_overrides
from dbf_ray.freezing import Horizon
from dbf_ray.search.settings import Beginning, Setting

EPOCHS, STAGES, COSTS = 6, 4, (10.0, 8.0, 7.0, 6.0, 4.0)
BEST = {"freezing.budget": 3, "freezing.policy": "back"}


def base(seed: int) -> Config:
    return with_overrides(Config(), {"training.epochs": EPOCHS, "seed": seed})


def begin(config: Config) -> Beginning:
    return Beginning(Horizon(config.training.epochs, STAGES, config.seed, costs=COSTS), {})


@functools.cache
def settings(seed: int, count: int = 30) -> list[Setting]:
    return settings_of(base(seed), count, begin)


def map50_of(setting: Setting) -> float:
    """More with more compute, and most with BEST."""
    spent = sum(nominal(setting, begin(setting.config).horizon)) / (EPOCHS * COSTS[0])
    return 0.2 + 0.3 * spent + (0.3 if setting.overrides == BEST else 0.0)


def write_table(file: Path, seeds: Sequence[int] = (0, 1, 2), noise: float = 0.005) -> Path:
    for seed in seeds:
        random, rows = np.random.default_rng(seed), list[Row]()
        for setting in settings(seed):
            last = map50_of(setting) + noise * random.standard_normal()
            text, costs = setting_text(setting.overrides), nominal(setting, begin(setting.config).horizon)
            for epoch, cost in enumerate(costs):
                value = last * (epoch + 1) / EPOCHS
                rows.append(Row(text, seed, epoch, value, setting.states[epoch + 1], cost, 1.0))
        append_rows(file, rows)
    write_facts(file, base(0), begin(base(0)).horizon, {})
    return file


@dataclass(frozen=True)
class Plain:
    """A candidate: the setting's place in the world alone."""

    place: int
    setting: Setting


def plain(world: World, seed: int) -> list[Plain]:
    return [Plain(place, setting) for place, setting in enumerate(world.settings[seed])]


class Chance:
    """A tiny random sampler."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def next(self, pool: Sequence[Any], told: Any, running: Any, have: Any) -> int | None:
        return int(self._random.integers(len(pool))) if pool else None


class Clairvoyant:
    """Takes what is best for its cost, in truth."""

    def __init__(self, world: World, seed: int) -> None:
        self._gain = world.truth(seed) - 0.3 * world.cost

    def next(self, pool: Sequence[Plain], told: Any, running: Any, have: Any) -> int | None:
        return int(np.argmax([self._gain[one.place] for one in pool])) if pool else None


def chance(world: World, training: int, seed: int) -> Chance:
    return Chance(seed)


def clairvoyant(world: World, training: int, seed: int) -> Clairvoyant:
    return Clairvoyant(world, training)


MAKERS: dict[str, Callable[..., Any]] = {"random": chance, "clairvoyant": clairvoyant}
