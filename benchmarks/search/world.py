"""A recorded table as a world to search in: what each setting would give, without training anything."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.table import Row, read_rows, setting_text
from dbf_ray.config import Config, make_config
from dbf_ray.errors import DataError
from dbf_ray.files import write_bytes, write_json
from dbf_ray.freezing import Horizon
from dbf_ray.reports.pareto import hypervolume, pareto_front
from dbf_ray.search.settings import Beginning, Setting, Settings
from dbf_ray.search.spaces import load_space

Array = NDArray[np.float64]
SPACE = "policies"


@dataclass(frozen=True)
class World:
    """A table of several training seeds.

    Attributes:
        settings: by training seed, the same ones in the same order; baselines first.
        baselines: how many of them are.
        final: map50 of the last epoch by training seed, float64 [settings].
        cost: compute_ratio, float64 [settings].
        make: makes settings of overrides, by training seed.
        epochs: E.
        resampled: map50 on resampled images by training seed, [settings, draws]; of a seed without it: none.
    """

    settings: Mapping[int, Sequence[Setting]]
    baselines: int
    final: Mapping[int, Array]
    cost: Array
    make: Mapping[int, Settings]
    epochs: int
    resampled: Mapping[int, Array] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """Training seeds."""
        return sorted(self.settings)

    def truth(self, seed: int) -> Array:
        """Means of map50 over the training seeds but ``seed``; itself where there is no other."""
        others = [self.final[one] for one in self.seeds if one != seed] or [self.final[seed]]
        return np.mean(others, axis=0)

    def score(self, seed: int) -> Callable[[Sequence[int]], float]:
        """How good a reported front is for a search that saw the training seed ``seed``: the hypervolume of
        its settings at their true values, 0 that of the baselines and 1 that of the true front.
        """
        points = list(zip(self.truth(seed).tolist(), self.cost.tolist(), strict=True))
        best, first = pareto_front(points), range(self.baselines)
        spanned = np.array([points[place] for place in {*best, *first}])
        low, high = spanned.min(0), spanned.max(0)
        margin = (high - low) / 10
        reference = (float(low[0] - margin[0]), float(high[1] + margin[1]))

        def volume(places: Sequence[int]) -> float:
            return hypervolume([points[place] for place in places], reference)

        zero, one = volume([*first]), volume(best)
        if one <= zero:
            raise DataError("a table must have a setting that beats the baselines, this one has none")
        return lambda places: (volume(places) - zero) / (one - zero)

    def exhaustive(self, seed: int) -> float:
        """The score of a search that has trained everything: the ceiling."""
        return self.score(seed)(observed_front(self, seed, range(len(self.cost))))


def observed_front(world: World, seed: int, told: Sequence[int]) -> list[int]:
    """The front of what a search has seen."""
    points = [(float(world.final[seed][one]), float(world.cost[one])) for one in told]
    return [told[place] for place in pareto_front(points)]


def facts_file(file: Path) -> Path:
    """Where what is known of a table lies."""
    return file.with_suffix(".json")


def draws_file(file: Path) -> Path:
    """Where map50 of a table's settings on resampled images lies."""
    return file.with_suffix(".npz")


def add_draws(file: Path, text: str, seed: int, values: NDArray[np.float16]) -> None:
    """Keep what a setting would have on resampled images beside its table, in one step."""
    known: dict[str, Any] = {}
    if (target := draws_file(file)).exists():
        with np.load(target, allow_pickle=False) as arrays:
            known = dict(arrays)
    stream = io.BytesIO()
    np.savez_compressed(stream, **(known | {f"{seed} {text}": values}))
    write_bytes(target, stream.getvalue())


def read_draws(file: Path, texts: Sequence[str], seeds: Sequence[int]) -> dict[int, Array]:
    """[settings, draws] by training seed, of the seeds of which every setting has them."""
    if not (source := draws_file(file)).exists():
        return {}
    with np.load(source, allow_pickle=False) as arrays:
        return {
            seed: np.array([arrays[f"{seed} {text}"] for text in texts], dtype=float)
            for seed in seeds
            if all(f"{seed} {text}" in arrays for text in texts)
        }


def write_facts(file: Path, config: Config, horizon: Horizon, more: Mapping[str, Any]) -> None:
    """Keep beside a table what its settings are overrides of; of places the names alone."""
    tree = config.model_dump(mode="json")
    for section, key in (("data", "root"), ("detector", "weights_backbone")):
        if (place := tree[section][key]) is not None:
            tree[section][key] = Path(place).name
    numbers = {"num_stages": horizon.num_stages, "costs": list(horizon.costs or ())}
    steps = {"block_steps": horizon.block_steps, "always_frozen": horizon.always_frozen}
    write_json(facts_file(file), {"config": tree, "horizon": {**numbers, **steps}, **more})


def load_world(file: Path) -> World:
    """The world of a table.

    Raises:
        DataError: it lacks a baseline or its facts, or has no setting that is whole.
    """
    rows = read_rows(file)
    try:
        facts = json.loads(facts_file(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{facts_file(file)} must be there beside the table, as record writes it") from error
    config = make_config(facts["config"], str(facts_file(file)))
    known = dict(facts["horizon"])
    stages, costs = known.pop("num_stages"), tuple(known.pop("costs"))

    begin = _Begin(stages, costs, known)
    seeds = sorted({row.seed for row in rows})
    curves = {seed: _curves(rows, seed, config.training.epochs) for seed in seeds}
    whole = (
        [text for text in curves[seeds[0]] if all(text in curves[seed] for seed in seeds)] if seeds else []
    )
    first = [setting_text(one) for one in load_space(SPACE).baselines]
    if missing := [text for text in first if text not in whole]:
        raise DataError(f"{file} must have the baselines of {SPACE}, {missing[0]} is missing or not whole")
    order = [*first, *(text for text in whole if text not in first)]
    make = {seed: Settings(config.model_copy(update={"seed": seed}), begin) for seed in seeds}
    settings = {seed: [make[seed].make(json.loads(text)) for text in order] for seed in seeds}
    flops = np.array([sum(row.flops for row in curves[seeds[0]][text]) for text in order])
    final = {seed: np.array([curves[seed][text][-1].map50 for text in order]) for seed in seeds}
    cost, drawn = flops / flops[0], read_draws(file, order, seeds)
    return World(settings, len(first), final, cost, make, config.training.epochs, drawn)


@dataclass(frozen=True)
class _Begin:
    """How the recorded settings began, without their data."""

    num_stages: int
    costs: tuple[float, ...]
    others: Mapping[str, Any]

    def __call__(self, config: Config) -> Beginning:
        epochs = config.training.epochs
        horizon = Horizon(epochs, self.num_stages, config.seed, costs=self.costs, **self.others)
        return Beginning(horizon, {})


def _curves(rows: Sequence[Row], seed: int, epochs: int) -> dict[str, list[Row]]:
    """Rows by setting, by epoch, of those that are whole."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        if row.seed == seed:
            found.setdefault(row.setting, {})[row.epoch] = row
    return {
        text: [curve[epoch] for epoch in range(epochs)]
        for text, curve in found.items()
        if len(curve) == epochs
    }
