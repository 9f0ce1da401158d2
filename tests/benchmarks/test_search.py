"""The benchmark of searches: a table is recorded as a tree and replayed as a search would go."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.search.__main__ import command
from benchmarks.search.compare import Comparison, table_text
from benchmarks.search.overhead import Clock, summary
from benchmarks.search.record import Recording
from benchmarks.search.replay import Step, replay
from benchmarks.search.samplers import RecordedTpe
from benchmarks.search.statistics import Band, epochs_to, honesty, interval, paired, score_at
from benchmarks.search.table import COLUMNS, read_rows, setting_text
from benchmarks.search.task import ships
from benchmarks.search.world import World, load_world, observed_front
from dbf_ray.config import load_config, to_dict
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.reports.pareto import pareto_front
from dbf_ray.search.sharing import Visit
from dbf_ray.search.store import Store
from dbf_ray.search.trial import Keeping
from dbf_ray.training.checkpoint import save_checkpoint
from tests.benchmarks import recorded
from tests.tiny import write_image


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return load_world(recorded.write_table(tmp_path_factory.mktemp("table") / "curves.csv"))


def distinct(world: World, seed: int) -> int:
    return len({name for one in world.settings[seed] for name in one.states[1:]})


def test_a_table_comes_back_as_it_was_recorded(world: World) -> None:
    assert world.seeds == [0, 1, 2]
    assert [one.overrides for one in world.settings[0][: world.baselines]] == [
        {"freezing.policy": "full"},
        {"freezing.policy": "frozen"},
        {"freezing.policy": "lr_scale", "freezing.factor": 0.1},
    ]
    assert world.cost[:3].tolist() == pytest.approx([1.0, 0.4, 1.0])
    texts = [setting_text(one.overrides) for one in world.settings[0]]
    assert texts.count(setting_text(recorded.BEST)) == 1
    assert {f'{{"freezing.policy": "step", "freezing.rho": {rho}}}' for rho in range(2, 7)} <= {*texts}
    assert world.truth(0) == pytest.approx((world.final[1] + world.final[2]) / 2)


def test_the_score_is_0_for_baselines_and_1_for_the_true_front(world: World) -> None:
    score = world.score(1)
    points = list(zip(world.truth(1).tolist(), world.cost.tolist(), strict=True))
    assert score(range(world.baselines)) == pytest.approx(0)
    assert score(pareto_front(points)) == pytest.approx(1)
    assert score(range(len(world.cost))) == pytest.approx(1)
    best = next(place for place, one in enumerate(world.settings[1]) if one.overrides == recorded.BEST)
    assert 0.5 < score([*range(world.baselines), best]) < 1
    assert 0.8 < world.exhaustive(1) <= 1


@pytest.mark.parametrize("workers", [1, 4])
def test_a_replayed_search_trains_each_state_once_or_each_epoch(
    world: World, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.search.replay.KEPT", 10**3)  # with 16, some states are trained again
    options: dict[str, Any] = {"workers": workers, "budget": 10**6}
    for share, epochs in ((True, distinct(world, 0)), (False, len(world.cost) * recorded.EPOCHS)):
        candidates = recorded.plain(world, 0)
        steps = replay(world, 0, recorded.Chance(3), candidates, share=share, **options)
        assert steps[-1].epochs == epochs
        assert sorted(steps[-1].told) == [*range(len(world.cost))]
        assert {*steps[0].told} <= {*range(world.baselines)}
        assert [step.epochs for step in steps] == sorted(step.epochs for step in steps)
    few = replay(world, 0, recorded.Chance(3), candidates, workers=workers, share=True, budget=30)
    assert few[-1].epochs + workers * recorded.EPOCHS >= 30
    assert few[-1].epochs <= 30 + workers


def test_a_sampler_that_knows_all_is_found_better(world: World) -> None:
    comparison = Comparison(
        world, trainings=12, searches=6, makers=recorded.MAKERS, candidates=recorded.plain, seen=1.0
    )
    result = comparison.run(["random", "clairvoyant"], [1], say=lambda line: None)
    rows = {(row["sampler"], row["share"]): row for row in result["rows"]}
    assert set(rows) == {(name, share) for name in recorded.MAKERS for share in (False, True)}
    knowing, guessing = rows["clairvoyant", False], rows["random", False]
    assert knowing["at"][6]["iqm"] > guessing["at"][6]["iqm"]
    assert knowing["epochs_to_95"] < (guessing["epochs_to_95"] or np.inf)
    assert knowing["share_of_exhaustive"] == knowing["epochs_to_95"] / (len(world.cost) * 6)
    (one,) = [
        row
        for row in result["differences"]
        if (row["of"], row["over"]) == ("clairvoyant, 1 worker", "random, 1 worker")
    ]
    assert one["low"] > 0
    assert one["trainings"] == 12
    text = table_text(result)
    assert "| clairvoyant | 1 | yes |" in text
    assert f"Exhaustive: {result['exhaustive']['mean_score']:.3f} with {len(world.cost) * 6} epochs" in text
    json.dumps(result, allow_nan=False)


def test_tpe_chooses_recorded_settings_by_optuna(world: World) -> None:
    steps = replay(
        world, 0, RecordedTpe(world, 0, 1), recorded.plain(world, 0), workers=2, share=True, budget=90
    )
    assert len(steps) > 12
    again = replay(
        world, 0, RecordedTpe(world, 0, 1), recorded.plain(world, 0), workers=2, share=True, budget=90
    )
    assert again == steps
    other = replay(
        world, 0, RecordedTpe(world, 0, 2), recorded.plain(world, 0), workers=2, share=True, budget=90
    )
    assert other != steps


def test_numbers_over_searches() -> None:
    found = interval([0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0])
    assert found["iqm"] == 1.0
    assert found["low"] <= 1.0 <= found["high"]
    one, other = {(0, seed): 1.0 + seed for seed in range(9)}, {(0, seed): 0.5 + seed for seed in range(9)}
    assert paired(one, other) == {"iqm": 0.5, "low": 0.5, "high": 0.5}


def test_bands_that_are_true_are_honest(world: World) -> None:
    told = [*range(len(world.cost))]
    front = {*pareto_front(list(zip(world.truth(0).tolist(), world.cost.tolist(), strict=True)))}

    def knows(world: World, seed: int, told: Any) -> list[Band]:
        return [Band(world.truth(seed)[one], world.truth(seed)[one], float(one in front)) for one in told]

    def is_sure(world: World, seed: int, told: Any) -> list[Band]:
        seen = observed_front(world, seed, told)
        return [Band(2.0, 3.0, float(one in seen)) for one in told]

    assert honesty(world, 0, told, knows) | {"base_rate": 0} == {"coverage": 1, "brier": 0, "base_rate": 0}
    sure = honesty(world, 0, told, is_sure)
    assert sure["coverage"] == 0
    assert sure["brier"] > 0


def test_curves_of_scores() -> None:
    steps = [Step(12, (0,)), Step(20, (0, 1)), Step(31, (0, 1, 2))]
    scores = [0.1, 0.5, 0.9]
    assert [score_at(steps, scores, epochs) for epochs in (11, 12, 30, 99)] == [0.0, 0.1, 0.5, 0.9]
    assert epochs_to(steps, scores, 0.5) == 20
    assert epochs_to(steps, scores, 0.95) == np.inf


class Trainer:
    """Writes checkpoints and records instead of training; ends at the ``killed`` visit."""

    def __init__(self, killed: int = 10**6) -> None:
        self.trained: Counter[str] = Counter()
        self.left = killed

    def __call__(self, tree: Any, directory: str, store: Store, visit: Visit) -> list[dict[str, Any]]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        place, done, records = Path(directory), 0, list[dict[str, Any]]()
        if visit.begins:
            assert store.whole(visit.begins[0])
            records = json.loads((store[visit.begins[0]] / "record.json").read_text())["epochs"]
            records, done = [{"inherited": "x", **one} for one in records], len(records)
        keeping = Keeping(store, visit.keep)
        for epoch in range(done, recorded.EPOCHS):
            records.append({"epoch": epoch, "map50": 0.1 * epoch, "wall_seconds": 2.0})
            facts = {"pieces": [{"versions": store.versions}]}
            checkpoint = save_checkpoint(
                place / "checkpoints", epoch + 1, {"epoch": epoch + 1}, {"facts": facts, "epochs": records}
            )
            keeping({"epoch": epoch}, checkpoint)
        return records


@pytest.mark.parametrize("processes", [1, 2])
def test_a_recording_trains_each_state_once_and_goes_on_after_a_kill(tmp_path: Path, processes: int) -> None:
    settings = recorded.settings(0)[:16]
    horizon = recorded.begin(recorded.base(0)).horizon
    said: list[str] = []

    def recording(trainer: Trainer, file: str = "one.csv") -> Recording:
        where = tmp_path / file, tmp_path / f"{file}.work"
        return Recording(settings, horizon, *where, 0, trainer, ThreadPoolExecutor, said.append)

    whole = recording(Trainer()).run(processes)
    states = {name for one in settings for name in one.states[1:]}
    assert whole["epochs_trained"] == len(states)
    rows = read_rows(tmp_path / "one.csv")
    assert len(rows) == len(settings) * recorded.EPOCHS
    assert {row.state for row in rows} == states
    assert not list((tmp_path / "one.csv.work" / "runs").glob("*"))
    assert recording(Trainer()).run(processes)["epochs_trained"] == 0
    assert f"0 of {len(settings)} settings, 0 of {len(states)} epochs" in said[-2]

    with pytest.raises(KeyboardInterrupt):
        recording(Trainer(killed=9), "two.csv").run(processes)
    with (tmp_path / "two.csv").open("a") as file:
        file.write('"{""freezing')
    recording(Trainer(), "two.csv").run(processes)
    by_setting = {(row.setting, row.epoch): row for row in rows}
    assert {(row.setting, row.epoch): row for row in read_rows(tmp_path / "two.csv")} == by_setting


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "curves.csv"
    with pytest.raises(DataError, match=r"curves.json must be there"):
        load_world(file)
    file.write_text("a,b\n")
    with pytest.raises(DataError, match="must have the columns setting, seed"):
        read_rows(file)
    file.write_text(",".join(COLUMNS) + "\nx,0,0,bad,s,1,1\n")
    with pytest.raises(DataError, match="line 2: could not convert"):
        read_rows(file)
    recorded.write_table(tmp_path / "table.csv", seeds=[0])
    lines = (tmp_path / "table.csv").read_text().splitlines()
    (tmp_path / "table.csv").write_text("\n".join(line for line in lines if "lr_scale" not in line) + "\n")
    with pytest.raises(DataError, match="must have the baselines of policies"):
        load_world(tmp_path / "table.csv")
    with pytest.raises(ConfigError, match="must be one of record, replay, overhead, got 'play'"):
        command(["play"])


def test_the_small_task_is_a_fixed_part_of_the_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number in range(6):
            write_image(tmp_path / split, str(number), Image.new("RGB", (320, 200)), (10, 10, 90, 40))
            if number % 3 == 0:
                (tmp_path / split / "labelTxt" / f"{number}.txt").write_text("1 1 9 1 9 5 1 5 ship 2\n")
    config = ships(tmp_path, tmp_path / "part", images=2, val_images=1, size=128)
    assert [file.stem for file in sorted((tmp_path / "part/train/images").iterdir())] == ["1", "4"]
    planned = to_dict(load_config("hrsc_planned"))["detector"]["anchor_scales"]
    assert to_dict(config)["detector"]["anchor_scales"] == pytest.approx(planned)  # .4 of 320 as of 640
    double = ships(tmp_path, tmp_path / "part", images=2, val_images=1, size=256)
    assert to_dict(double)["detector"]["anchor_scales"] == pytest.approx([2 * one for one in planned])
    with pytest.raises(DataError, match="must have 5 images with objects, it has 4"):
        ships(tmp_path, tmp_path / "other", images=5, val_images=1, size=128)


def test_overheads_are_times_without_own_epochs() -> None:
    clock = Clock()
    clock.begun, clock.ended = {0: 0.0, 1: 12.0}, {0: 11.0, 1: 15.0}
    trials = [
        {"number": 0, "policy": "full", "parameters": {}, "epochs_trained": 4, "own": {"wall_seconds": 3.0}},
        {
            "number": 1,
            "policy": "frozen",
            "parameters": {},
            "epochs_trained": 4,
            "own": {"wall_seconds": 2.0},
        },
    ]
    rows = clock.overheads({"trials": trials})
    assert [(row["overhead"], row["gap"]) for row in rows] == [(8.0, None), (1.0, 1.0)]
    forks = [rows[0], {**rows[1], "forked": True, "overhead": 1.5}]
    assert summary(rows, forks) == {"trial": 2.0, "fork": 0.5, "first": 8.0}
    clock("trial 2 step(rho=2): started")
    clock("[3/5] trial 2 step(rho=2): map50 0.1")
    assert 2 in clock.begun
    assert 2 in clock.ended
