"""What the project's own reports say of chance, on recorded settings: bands, probabilities, and the front by
posterior means. Chance of images is known from the recorded draws; that of seeds is not, since a replayed
search sees one training seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.statistics import Band
from benchmarks.search.world import World
from dbf_ray.reports.statistics import Draws, Measured, draw, front_of, interval, on_front, posterior_means
from dbf_ray.search.evidence import Evidence

DRAWS = 400  # of images, for each setting


def answer(world: World, seed: int, told: Sequence[int]) -> list[Band]:
    """Band and probability of being on the front, as ``pareto.json`` has them, of the settings ``told``."""
    draws = _draws(world, seed, told)
    low, high = interval(draws.values + draws.common)
    shares = on_front(draws.values, draws.costs).mean(1)
    return [Band(*map(float, one)) for one in zip(low, high, shares, strict=True)]


def posterior_front(world: World, seed: int, told: Sequence[int]) -> list[int]:
    """The front of what is believed instead of what was seen."""
    draws = _draws(world, seed, told)
    return [told[place] for place in front_of(posterior_means(draws), draws.costs)]


def resampled(folder: Path, record: Mapping[str, float]) -> NDArray[np.float16] | None:
    """map50 of a finished training on resampled images [DRAWS], from its run folder."""
    row = {"number": 0, "run": str(folder), "map50": record["map50"]}
    found = Evidence("map50", DRAWS).of([row]).get(0)
    return None if found is None else found[0].astype(np.float16)


def _draws(world: World, seed: int, told: Sequence[int]) -> Draws:
    known = world.resampled.get(seed)
    return draw(
        [
            Measured(
                float(world.cost[one]),
                {seed: float(world.final[seed][one])},
                {} if known is None else {seed: known[one]},
            )
            for one in told
        ]
    )
