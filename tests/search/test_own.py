"""Searches with one's own training function: the example of the documentation with real Ray workers; what is
refused, without Ray.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dbf_ray.api import search_schedules
from dbf_ray.config import Config, with_overrides
from dbf_ray.errors import ConfigError, DbfRayError, TrainingError
from dbf_ray.freezing import Freezer, FreezingSchedule, make_policy
from dbf_ray.search.own import OwnBegin, OwnTraining, own_config, own_training
from dbf_ray.search.own_run import OwnRun, unpack
from dbf_ray.search.settings import Settings
from dbf_ray.search.states import common
from dbf_ray.tracking import JsonlTracker, read_epochs, read_summary
from dbf_ray.training.checkpoint import load_checkpoint, newest_whole
from tests.search.own_example import load_example

COSTS = [1.0, 0.7, 0.4]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return load_example(tmp_path_factory.mktemp("example"))


def counts(schedule: dict[str, Any], folder: Path, begin: Path | None, report: Any) -> None:
    """Its state is the list of what each epoch froze; accuracy is made of it."""
    past = [] if begin is None else json.loads((begin / "past.json").read_text())
    decided = schedule["policy"].decisions(schedule["epochs"], 2, schedule["seed"], costs=schedule["costs"])
    for epoch in range(len(past), schedule["epochs"]):
        past.append(decided[epoch])
        (folder / "past.json").write_text(json.dumps(past))
        report(epoch, accuracy=sum(past) / 100, frozen_stages=past[-1])


def run_of(
    train: Callable[..., Any], folder: Path, *, epochs: int = 4, signals: Any = (), **options: Any
) -> dict[str, Any]:
    """One trial in this process."""
    own = own_training(train, epochs=epochs, num_stages=2, costs=COSTS, version="1", signals=signals)
    changes = options.pop("changes", {"freezing.policy": "step", "freezing.rho": 3})
    config = with_overrides(own_config(Config(), own), {"name": folder.name, **changes})
    options.setdefault("on_epoch", lambda record, checkpoint: True)
    return OwnRun(own)(config, directory=folder, trackers=[JsonlTracker(folder)], **options)


@pytest.mark.ray
def test_a_small_classifier_on_two_workers_shares_its_beginnings_to_the_bit(
    two_cpus: None, example: ModuleType, tmp_path: Path
) -> None:
    said: list[str] = []
    keys = {"search.studies_dir": str(tmp_path), "tracking.mlflow": False, "search.controls": []}
    result = example.find_schedule(trials=7, concurrent=2, progress=said.append, **keys)
    assert {row["state"] for row in result["trials"]} == {"COMPLETE"}
    assert len(result["trials"]) == 7  # full, frozen, step(2..6)
    assert (result["epochs_trained"], result["epochs_shared"]) == (27, 15)  # all of 7 x 6
    assert any("2 at once" in line for line in said)
    for row in result["trials"]:
        straight: list[float] = []
        schedule = {
            "policy": make_policy(row["policy"], **row["parameters"]),
            "epochs": 6,
            "seed": row["seed"],
            "costs": (1.0, 0.8, 0.6, 0.4),
        }
        alone = tmp_path / f"alone-{row['number']}"
        alone.mkdir()

        def note(epoch: int, accuracy: float, into: list[float] = straight, **_: Any) -> None:
            into.append(accuracy)

        example.train_classifier(schedule, alone, None, note)
        assert [epoch["accuracy"] for epoch in read_epochs(Path(row["run"]))] == straight
        assert row["accuracy"] == straight[-1]
        timeline = schedule["policy"].decisions(6, 3)
        spent = sum(schedule["costs"][frozen] for frozen in timeline)
        assert row["compute_ratio"] == pytest.approx(spent / 6)
        last = newest_whole(Path(row["run"]) / "checkpoints")
        assert last is not None
        unpack(load_checkpoint(last)[0]["files"], alone / "shared")
        ours, theirs = (torch.load(place / "state.pt") for place in (alone, alone / "shared"))
        for name, weight in ours["model"].items():
            assert torch.equal(weight, theirs["model"][name]), name
        moments = (list(state["optimizer"]["state"].values()) for state in (ours, theirs))
        for one, two in zip(*moments, strict=True):
            assert torch.equal(one["momentum_buffer"], two["momentum_buffer"])
    values = {row["accuracy"] for row in result["trials"]}
    assert len(values) > 2, "the schedules make no difference"
    again = {**keys, "version": "2"}
    with pytest.raises(ConfigError, match=r"begun with another training function, its version was .* give"):
        example.find_schedule(trials=8, **again)


def test_a_trial_goes_on_where_it_was_killed_and_where_another_was(tmp_path: Path) -> None:
    def killed(schedule: Any, folder: Path, begin: Path | None, report: Any) -> None:
        def until(epoch: int, **values: Any) -> None:
            report(epoch, **values)
            if epoch == 1:
                raise KeyboardInterrupt

        counts(schedule, folder, begin, until)

    folder = tmp_path / "one"
    with pytest.raises(KeyboardInterrupt):
        run_of(killed, folder)
    newest = newest_whole(folder / "checkpoints")
    assert newest is not None
    kept = Path(shutil.copytree(newest, tmp_path / "state"))
    called: list[int] = []
    options = {"on_epoch": lambda record, checkpoint: called.append(record["epoch"]) or True}
    summary = run_of(counts, folder, resume=newest, **options)
    assert called == [2, 3]
    assert summary["frozen_prefixes"] == [0, 2, 2, 0]
    assert summary["compute_ratio"] == pytest.approx((1 + 0.4 + 0.4 + 1) / 4)
    assert (summary["epochs_trained"], summary["forked_from"]) == (4, None)
    assert read_summary(folder) == summary
    last = newest_whole(folder / "checkpoints")
    assert run_of(counts, folder, resume=last)["accuracy"] == summary["accuracy"]  # killed before its summary

    begun = run_of(
        counts, tmp_path / "two", begin=kept, changes={"freezing.policy": "step", "freezing.rho": 4}
    )
    assert begun["frozen_prefixes"] == [0, 2, 2, 2]
    assert begun["epochs_trained"] == 2
    assert begun["forked_from"] == {"run": "one", "epoch": 2, "state": kept.name}
    assert [epoch.get("inherited") for epoch in read_epochs(tmp_path / "two")] == ["one", "one", None, None]
    assert begun["own"]["wall_seconds"] < begun["wall_seconds"]


def silent(schedule: Any, report: Any) -> None:
    report(0, accuracy=0.5)


def reports(**values: Any) -> Callable[..., None]:
    def train(schedule: Any, report: Any) -> None:
        report(**{"epoch": 0, "accuracy": 0.5, **values})

    return train


def writes_nothing(schedule: Any, folder: Any, begin: Any, report: Any) -> None:
    report(0, accuracy=0.5)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (silent, "must report each of 4 epochs, and ended after 1"),
        (reports(accuracy=float("nan")), "accuracy of epoch 0 must be a finite number, got nan"),
        (reports(accuracy=None), "accuracy of epoch 0 must be a finite number, got None"),
        (reports(epoch=1), "one after the other, 0 is due, got 1"),
        (reports(frozen_stages=2), "epoch 0 must freeze 0 stages, as policy step decides, got 2"),
        (reports(wall_seconds=1.0), "wall_seconds is set by the search"),
        (writes_nothing, "must write a checkpoint to its folder before each report"),
    ],
)
def test_a_function_that_reports_otherwise_fails_with_the_reason(
    train: Callable[..., Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=said):
        run_of(train, tmp_path)
    assert said in json.loads((tmp_path / "failure.json").read_text())["reason"]


def test_a_policy_that_decides_by_what_is_reported(tmp_path: Path) -> None:
    def adapts(schedule: dict[str, Any], report: Any) -> None:
        model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3)))
        freezing = FreezingSchedule(freezer=Freezer.of(model, ["0", "1"]), **schedule)
        for epoch in range(4):
            freezing.begin_epoch(epoch)
            freezing.report(map50=0.5)
            report(epoch, accuracy=0.5, **({"frozen_stages": freezing.num_frozen} if told else {}))

    changes = {"freezing.policy": "plateau", "freezing.patience": 1, "freezing.min_delta": 0.1}
    told = True
    summary = run_of(adapts, tmp_path, signals=["map50"], changes=changes)
    assert len(set(summary["frozen_prefixes"])) > 1
    told = False
    with pytest.raises(TrainingError, match="report must get frozen_stages"):
        run_of(adapts, tmp_path, signals=["map50"], changes=changes)
    own = own_training(adapts, epochs=4, num_stages=2, costs=COSTS, version="1")
    with pytest.raises(ConfigError, match=r"policy plateau decides by map50, which .* name it in signals"):
        Settings(Config(), OwnBegin(own)).make(changes)


def own(**changes: Any) -> OwnTraining:
    return own_training(**{"train": counts, "epochs": 4, "num_stages": 2, "costs": COSTS, **changes})


def test_states_are_of_one_function_and_a_study_too(tmp_path: Path) -> None:
    def other(schedule: Any, folder: Any, begin: Any, report: Any) -> None:
        counts(schedule, folder, begin, report)

    def states(training: OwnTraining, rho: int) -> tuple[str, ...]:
        made = Settings(own_config(Config(), training), OwnBegin(training))
        return made.make({"freezing.policy": "step", "freezing.rho": rho}).states

    assert common(states(own(), 3), states(own(), 4)) == 3
    assert states(own(), 3) == states(own(version=own().version), 3)
    assert not {*states(own(), 3)} & {*states(own(train=other), 3)}
    assert not {*states(own(), 3)} & {*states(own(version="2"), 3)}
    (tmp_path / "trials" / "0").mkdir(parents=True)
    with pytest.raises(ConfigError, match="another training function"):  # a detector's study
        OwnBegin(own()).study_data(Config(), tmp_path)
    OwnBegin(own(version="a")).study_data(Config(), tmp_path / "new").write(tmp_path)
    assert OwnBegin(own(version="a")).study_data(Config(), tmp_path).notes == ()
    with pytest.raises(ConfigError, match=r"its costs was \[1.0, 0.7, 0.4\], and is now \[1.0, 0.7, 0.5\]"):
        OwnBegin(own(version="a", costs=[1.0, 0.7, 0.5])).study_data(Config(), tmp_path)


def test_a_function_without_begin_shares_nothing() -> None:
    assert own_config(Config(), own()).search.kept_states > 0
    assert own_config(Config(), own(train=silent)).search.kept_states == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train": 3}, "train must be a function of schedule, report"),
        ({"train": lambda report: None}, "train must be a function of schedule, report"),
        ({"train": lambda schedule, report, lr: None}, "give further arguments a default"),
        ({"train": lambda schedule, report, begin: None}, "train must take folder"),
        ({"train": functools.partial(counts)}, "needs a version where its source cannot be read"),
        ({"costs": [1.0, 0.5]}, "costs must be 3 finite numbers > 0"),
        ({"costs": [1.0, 0.5, float("nan")]}, "costs must be 3 finite numbers > 0"),
        ({"costs": None}, "needs num_stages and costs, costs is missing"),
        ({"num_stages": 0}, "num_stages must be an integer >= 1, got 0"),
        ({"epochs": 0}, "epochs must be an integer >= 1, got 0"),
        ({"cluster": {"workers": 2}}, "cluster.workers must be 1"),
        ({"freezing": {"interval": {"every": 2}}}, "freezing.interval must be 1 epoch"),
        ({"train": None}, "num_stages is for one's own training function, got 2 without train"),
    ],
)
def test_what_is_refused_before_anything_is_written(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    given = {"train": counts, "num_stages": 2, "epochs": 4, "costs": COSTS, **options}
    with pytest.raises(DbfRayError, match=said):
        search_schedules(study="s", **{"search.studies_dir": str(tmp_path)}, **given)
    assert not any(tmp_path.iterdir())


def test_a_schedule_takes_the_state_of_another_policy_that_did_the_same() -> None:
    def schedule(name: str, **parameters: Any) -> FreezingSchedule:
        freezer = Freezer.of(torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3))), ["0", "1"])
        return FreezingSchedule(make_policy(name, **parameters), freezer, epochs=6, costs=COSTS)

    first = schedule("step", rho=3)
    for epoch in range(3):
        first.begin_epoch(epoch)
    state = json.loads(json.dumps(first.state_dict()))
    second = schedule("step", rho=5)
    with pytest.raises(ConfigError, match="must resume with the policy it began with"):
        second.load_state_dict(state)
    second.load_state_dict(state, replay=True)
    assert (second.epoch, second.begin_epoch(3), second.num_frozen) == (2, True, 2)
    full, limited = schedule("full"), schedule("budget", limit=0.7, inner={"name": "full"})
    for epoch in range(2):
        full.begin_epoch(epoch)
    limited.load_state_dict(full.state_dict(), replay=True)
    frozen = []
    for epoch in range(2, 6):
        limited.begin_epoch(epoch)
        frozen.append(limited.num_frozen)
    assert frozen == [0, 2, 2, 2]  # it knows what the first two have cost
    with pytest.raises(ConfigError, match="freezes 0 of 2; begin anew"):
        schedule("full").load_state_dict(state, replay=True)
