"""What the benchmark of searches asks the project's own reports about chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search.bands import DRAWS, answer, posterior_front, resampled
from benchmarks.search.statistics import honesty
from benchmarks.search.world import World, add_draws, load_world, observed_front, read_draws
from dbf_ray.evaluation.matches import MATCHES, Matches, write_matches
from tests.benchmarks import recorded


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return load_world(recorded.write_table(tmp_path_factory.mktemp("table") / "curves.csv"))


def chance(world: World, seed: int, spread: float) -> World:
    """``world`` with draws of images that differ by ``spread``."""
    random = np.random.default_rng(1)
    moved = spread * random.standard_normal((len(world.cost), DRAWS))
    return replace(world, resampled={seed: world.final[seed][:, None] + moved})


def test_bands_hold_the_truth_as_often_as_chance_is_known(world: World) -> None:
    told = [*range(len(world.cost))]
    fits, tight = (honesty(chance(world, 0, spread), 0, told, answer) for spread in (0.02, 1e-6))
    assert fits["coverage"] > 0.9  # noise of a training is .005
    assert tight["coverage"] < 0.2
    assert fits["brier"] < 0.25  # than a coin's


def test_without_chance_the_front_that_is_believed_is_the_one_that_is_seen(world: World) -> None:
    told = [*range(len(world.cost))]
    assert posterior_front(world, 0, told) == observed_front(world, 0, told)
    assert posterior_front(chance(world, 0, 0.1), 0, told) != observed_front(world, 0, told)
    sure = answer(world, 0, told)
    seen = observed_front(world, 0, told)
    assert [one for one, band in zip(told, sure, strict=True) if band.p_front == 1] == sorted(seen)


def test_draws_lie_beside_the_table(tmp_path: Path) -> None:
    file = tmp_path / "curves.csv"
    assert read_draws(file, ["a"], [0]) == {}
    for seed, text in ((0, "a"), (0, "b"), (1, "a")):
        add_draws(file, text, seed, np.full(DRAWS, seed + 0.5, np.float16))
    found = read_draws(file, ["b", "a"], [0, 1])
    assert [*found] == [0]  # of seed 1 one is missing
    assert found[0].shape == (2, DRAWS)
    assert read_draws(file, ["a"], [0, 1])[1].tolist() == [[1.5] * DRAWS]


def test_draws_of_a_training_are_those_of_its_matches(tmp_path: Path) -> None:
    names, count = np.array([f"{place}" for place in range(8)]), 8
    hits = np.arange(count) % 2 == 0
    matches = Matches(
        names,
        np.array(["ship"]),
        np.ones((1, count), np.int32),
        np.zeros(count, np.int16),
        np.arange(count, dtype=np.int32),
        np.linspace(0.9, 0.1, count).astype(np.float32),
        np.where(hits, 0.9, 0.0).astype(np.float32),
        np.where(hits, np.arange(count), -1).astype(np.int32),
        np.zeros(count, bool),
    )
    write_matches(tmp_path / MATCHES, {"": matches})
    map50 = matches.metric("map50")
    drawn = resampled(tmp_path, {"map50": map50})
    assert drawn is not None
    assert drawn.shape == (DRAWS,)
    assert abs(float(drawn.mean()) - map50) < 0.1
    assert drawn.std() > 0.01
    assert resampled(tmp_path, {"map50": map50 + 0.1}) is None  # of another evaluation
    assert resampled(tmp_path / "none", {"map50": map50}) is None
