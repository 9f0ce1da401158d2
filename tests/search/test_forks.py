"""A training that begins at another's checkpoint ends in the bits of one that was trained straight: weights,
optimizer, scheduler, average, and each epoch's record.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dbf_ray.build import prepare
from dbf_ray.config import Config
from dbf_ray.freezing import make_policy
from dbf_ray.run import run, run_directory
from dbf_ray.run.pictures import Pictures
from dbf_ray.run.summary import lineage
from dbf_ray.search.settings import Beginning, Setting, Settings
from dbf_ray.search.states import common
from dbf_ray.tracking import read_epochs, read_summary
from dbf_ray.training.scheduler import FreezingScheduler
from tests.tiny import on_ranks
from tests.training.policy_runs import (
    BLOCKS,
    EPOCHS,
    SETTINGS,
    THAWING,
    costs,
    costs_of,
    differences,
    left,
    make_cheap,
    setting,
)

# every policy that is known before training, and others that share more with them
COSINE = {"name": "cosine", "start": 1.0, "end": 0.3}
KNOWN: dict[str, dict[str, Any]] = {
    **{
        name: changes
        for name, changes in SETTINGS.items()
        if not make_policy(
            name, **{key[9:]: value for key, value in changes.items() if key[9:] != "policy"}
        ).needs_signals
    },
    **{f"step {rho}": {"freezing.policy": "step", "freezing.rho": rho} for rho in (2, 4, 6)},
    "front 4": {"freezing.policy": "front", "freezing.budget": 4},
    "back 4": {"freezing.policy": "back", "freezing.budget": 4},
    "cosine .3": {"freezing.policy": "cosine", "freezing.start": 1.0, "freezing.end": 0.3},
    "budget of it": {"freezing.policy": "budget", "freezing.limit": 0.97, "freezing.inner": COSINE},
}
SOME = ("step 2", "step 6", "cosine .3", "budget of it")  # thaws, and a state that is replayed
CACHED = {"freezing.cache": "ram", "data.orientation_per": "span", "data.pad_to": "square"}
VARIANTS: dict[str, dict[str, Any]] = {"plain": {}, "thawing": THAWING, "blocks": BLOCKS, "cached": CACHED}


@pytest.fixture(autouse=True)
def _cheap(narrow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pictures, "_draw", lambda *_: None)


def begin(config: Config) -> Beginning:
    return Beginning(prepare(config, costs_of(config)).horizon, {})


def made(folder: Path, names: Sequence[str], **more: Any) -> dict[str, Setting]:
    """Settings with all their checkpoints kept, named as their runs are."""
    kept = {"training.keep_checkpoints": EPOCHS, **more}
    settings = Settings(setting(folder, "base", **kept), begin)
    found = {name: settings.make(KNOWN[name]) for name in names}
    return {
        name: dataclasses.replace(one, config=one.config.model_copy(update={"name": name}))
        for name, one in found.items()
    }


def forks(settings: dict[str, Setting]) -> dict[str, tuple[str, int]]:
    """For each setting the other one that shares most epochs with it, and how many; none with nobody."""
    found = {}
    for name, one in settings.items():
        shared = {
            other: min(common(one.states, two.states), EPOCHS - 1)
            for other, two in settings.items()
            if other != name
        }
        best = max(shared, key=lambda other: shared[other])
        if shared[best]:
            found[name] = (best, shared[best])
    return found


def fork(one: Setting, other: Setting, epoch: int) -> Config:
    """Train ``one`` from ``other``'s checkpoint on; the configuration of that run."""
    config = one.config.model_copy(update={"name": f"{one.config.name} from {other.config.name}"})
    checkpoint = run_directory(other.config) / "checkpoints" / f"epoch-{epoch:05d}"
    run(config, begin=checkpoint, quiet=True, table=costs_of(config))
    return config


def differ(straight: Config, forked: Config) -> list[str]:
    one, two = left(straight), left(forked)
    if straight.freezing.cache != "off":  # what is not known any more is computed again
        for epoch in (*one["epochs"], *two["epochs"]):
            del epoch[5]  # executed_flops
    return differences(one, two)


def check(folder: Path, names: Sequence[str], least: int, **more: Any) -> None:
    settings = made(folder, names, **more)
    for one in settings.values():
        run(one.config, quiet=True, table=costs_of(one.config))
    found = forks(settings)
    assert len(found) >= least
    wrong = {}
    for name, (other, epoch) in found.items():
        forked = fork(settings[name], settings[other], epoch)
        wrong[name, other, epoch] = differ(settings[name].config, forked)
        check_costs(settings[name].config, forked, other, epoch)
    assert {pair: places for pair, places in wrong.items() if places} == {}


def check_costs(straight: Config, forked: Config, other: str, epoch: int) -> None:
    """It costs what the straight run did; its own are the epochs after the fork."""
    alone, summary = (read_summary(run_directory(config)) or {} for config in (straight, forked))
    rows = read_epochs(run_directory(forked))
    assert [row["epoch"] for row in rows] == list(range(EPOCHS))
    assert [row.get("inherited") for row in rows] == [other] * epoch + [None] * (EPOCHS - epoch)
    assert (alone["epochs_trained"], alone["forked_from"]) == (EPOCHS, None)
    assert alone["own"]["executed_flops"] == alone["executed_flops"]
    assert summary["executed_flops"] == sum(row["executed_flops"] for row in rows)
    if straight.freezing.cache == "off":
        assert summary["executed_flops"] == alone["executed_flops"]
    assert summary["epochs_trained"] == EPOCHS - epoch
    assert summary["forked_from"] == {"run": other, "epoch": epoch, "state": f"epoch-{epoch:05d}"}
    assert summary["own"]["executed_flops"] == sum(row["executed_flops"] for row in rows[epoch:])
    assert summary["attempts"] == 1
    assert summary["compute_ratio"] == alone["compute_ratio"]
    assert len(summary["pieces"]) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_some_forked_trainings_end_in_the_bits_of_straight_ones(variant: str, tmp_path: Path) -> None:
    check(tmp_path, SOME, 3, **VARIANTS[variant])


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_forked_trainings_end_in_the_bits_of_straight_ones(variant: str, tmp_path: Path) -> None:
    check(tmp_path, list(KNOWN), 17, **VARIANTS[variant])


def test_a_fork_with_the_other_policys_memory_would_be_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = made(tmp_path, ["cosine .3", "budget of it"])
    for one in settings.values():
        run(one.config, quiet=True, table=costs())
    monkeypatch.setattr(FreezingScheduler, "_replay", lambda self: None)
    trusting = fork(settings["budget of it"], settings["cosine .3"], 2)
    prefixes = [
        (read_summary(run_directory(config)) or {})["frozen_prefixes"]
        for config in (settings["budget of it"].config, trusting)
    ]
    assert prefixes[0] != prefixes[1]
    assert any(place.startswith("/model") for place in differ(settings["budget of it"].config, trusting))


def test_a_fork_that_was_interrupted_and_a_fork_of_it(tmp_path: Path) -> None:
    settings = made(tmp_path, ["step 6", "step 4"])
    run(settings["step 6"].config, quiet=True, table=costs())
    middle = settings["step 4"].config
    checkpoints = [run_directory(one.config) / "checkpoints" for one in settings.values()]
    begin_at = checkpoints[0] / "epoch-00003"
    run(middle, begin=begin_at, quiet=True, table=costs(), on_epoch=lambda *_: False)
    run(middle, begin=begin_at, resume=checkpoints[1] / "epoch-00004", quiet=True, table=costs())
    summary = read_summary(run_directory(middle)) or {}
    assert summary["forked_from"] == {"run": "step 6", "epoch": 3, "state": "epoch-00003"}
    assert (summary["epochs_trained"], summary["attempts"]) == (3, 2)
    straight = middle.model_copy(update={"name": "straight"})
    run(straight, quiet=True, table=costs())
    assert differ(straight, middle) == []
    again = middle.model_copy(update={"name": "again"})
    run(again, begin=checkpoints[1] / "epoch-00005", quiet=True, table=costs())
    rows = read_epochs(run_directory(again))
    assert [row.get("inherited") for row in rows] == [*["step 6"] * 3, *["step 4"] * 2, None]
    assert differ(straight, again) == []


def test_work_that_was_lost_before_a_forks_first_checkpoint_is_its_own(tmp_path: Path) -> None:
    settings = made(tmp_path, ["step 6", "step 4"])
    run(settings["step 6"].config, quiet=True, table=costs())
    begin_at = run_directory(settings["step 6"].config) / "checkpoints" / "epoch-00003"

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    config = settings["step 4"].config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dbf_ray.run.runner.save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, begin=begin_at, quiet=True, table=costs())
    summary = run(config, begin=begin_at, quiet=True, table=costs())
    rows = read_epochs(run_directory(config))
    once = sum(row["executed_flops"] for row in rows[3:])
    assert summary["own"]["executed_flops"] == once + rows[3]["executed_flops"]
    assert summary["executed_flops"] == once + sum(row["executed_flops"] for row in rows[:4])
    assert summary["attempts"] == 2


def test_a_record_says_which_machine_workers_and_versions_trained_from_which_epoch_on() -> None:
    here, there = ({"machine": "a", "world_size": workers, "versions": {"torch": "2"}} for workers in (1, 2))
    known = {"name": "a", "pieces": [{"epoch": 0, **here}], "forked_from": None}
    assert lineage(known, here, 3, None) == {"pieces": known["pieces"], "forked_from": None}
    moved = lineage(known, there, 3, "state")
    assert moved["pieces"] == [{"epoch": 0, **here}, {"epoch": 3, **there}]
    assert moved["forked_from"] == {"run": "a", "epoch": 3, "state": "state"}
    assert lineage({"name": "b", **moved}, there, 5, None) == moved
    assert lineage({}, here, 2, None) == {"pieces": [{"epoch": 2, **here}], "forked_from": None}


def worker(rank: int, folder: str, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    make_cheap()
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    settings = made(Path(folder), names, **THAWING, **{"cluster.workers": 2})
    for one in settings.values():
        run(one.config, quiet=True, table=costs_of(one.config))
    found = {}
    for name, (other, epoch) in forks(settings).items():
        forked = fork(settings[name], settings[other], epoch)
        if rank == 0:
            check_costs(settings[name].config, forked, other, epoch)
            found[f"{name} from {other} at {epoch}"] = differ(settings[name].config, forked)
    if rank == 0:
        Path(folder, "found.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("names", "least"),
    [(SOME[:2], 2), pytest.param(list(KNOWN), 17, marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_forked_on_two_ranks(names: Sequence[str], least: int, tmp_path: Path) -> None:
    on_ranks(worker, str(tmp_path), names)
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) >= least
    assert {pair: places for pair, places in found.items() if places} == {}
