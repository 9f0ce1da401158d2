"""Searches on a real Ray, with a training that is only arithmetic (the real one has its own file)."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from ray import cloudpickle

from dbf_ray.cluster.ray_runtime import Resources
from dbf_ray.config import Config, to_dict, with_overrides
from dbf_ray.errors import ConfigError, ResourceError, TrainingError
from dbf_ray.search import concurrency, search
from dbf_ray.search.book import Book
from dbf_ray.search.searching import Searching
from dbf_ray.search.settings import Settings
from dbf_ray.search.store import Store
from dbf_ray.search.study import Trial
from dbf_ray.training.checkpoint import save_checkpoint
from tests.search.begins import four_stages

cloudpickle.register_pickle_by_value(sys.modules[__name__])
RHO = Path(__file__).parents[2] / "search_spaces" / "rho.py"
EPOCHS = 6


def arithmetic_run(config, *, directory, trackers=None, on_epoch=None, resume=None, **_) -> dict[str, Any]:
    """map50 grows with the epochs in which the backbone is trained, and so does the cost; rho 3 fails, rho 4
    has no number, rho 5 dies.
    """
    rho = config.freezing.parameters.get("rho")
    prefixes = {"full": [0] * EPOCHS, "frozen": [4] * EPOCHS}.get(config.freezing.policy) or [
        0 if epoch % rho == 0 else 4 for epoch in range(EPOCHS)
    ]
    budget = prefixes.count(0)
    for tracker in trackers:
        tracker.start(to_dict(config), {"num_stages": 4, "rho": rho}, 0)
    for epoch in range(EPOCHS):
        record = {
            "epoch": epoch,
            "loss": 1.0 / (epoch + 1),
            "map50": 0.02 * epoch,
            "frozen_stages": prefixes[epoch],
        }
        for tracker in trackers:
            tracker.epoch(record)
        if rho == 5:
            os._exit(1)
        if rho == 3 and epoch == 2:
            raise TrainingError("every loss must be finite, got nan")
        on_epoch(record, None)
    summary = {
        "epochs": EPOCHS,
        "policy": config.freezing.policy,
        "rho": rho,
        "budget": budget,
        "frozen_prefixes": prefixes,
    }
    summary |= {
        "map50": float("nan") if rho == 4 else 0.3 + 0.05 * budget,
        "map50_best": 0.7,
        "compute_ratio": 0.4 + 0.1 * budget,
    }
    print("a line for the log")
    for tracker in trackers:
        tracker.finish(summary)
    return summary


def base(tmp_path: Path, **changes: Any) -> Config:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return with_overrides(
        Config(),
        {
            "training.epochs": EPOCHS,
            "tracking.uri": uri,
            "cluster.max_failures": 0,
            "search.controls": [],
            **changes,
        },
    )


@pytest.mark.ray
def test_a_search_with_failing_trials_leaves_a_whole_study_and_goes_on_later(two_cpus, uri, tmp_path):
    said: list[str] = []
    options: dict[str, Any] = {
        "study_name": "s",
        "studies_dir": tmp_path,
        "progress": said.append,
        "run": arithmetic_run,
        "begin": four_stages,
    }
    result = search(base(tmp_path), RHO, trials=7, **options)

    rows = {(trial["policy"], trial["rho"]): trial for trial in result["trials"]}
    assert set(rows) == {("full", None), ("frozen", None), *(("step", rho) for rho in (2, 3, 4, 5, 6))}
    assert [trial["policy"] for trial in result["trials"]][:2] == ["full", "frozen"]
    assert {key[1] for key, trial in rows.items() if trial["state"] == "FAIL"} == {3, 4, 5}
    assert rows["step", 3]["failure"] == "every loss must be finite, got nan"
    assert rows["step", 4]["failure"] == "map50 must be a finite number, got None"
    assert "process died" in rows["step", 5]["failure"]
    assert rows["step", 2]["map50"] == pytest.approx(0.45)
    assert result["reference"] == pytest.approx([0.27, 1 + 1 / 15])  # a tenth behind frozen, and behind full
    assert sorted(result["front"]) == sorted(
        trial["number"] for trial in result["trials"] if trial["state"] == "COMPLETE"
    )

    folder = tmp_path / "s"
    assert {"study.db", "trials.csv", "pareto.json", "pareto.html", "pareto.png", "config.yaml"} <= {
        file.name for file in folder.iterdir()
    }
    assert json.loads((folder / "pareto.json").read_text()) == result
    with (folder / "trials.csv").open() as table:
        assert len(list(csv.DictReader(table))) == 7
    trial = folder / "trials" / str(rows["step", 2]["number"])
    assert (
        yaml.safe_load((trial / "config.yaml").read_text())["freezing"].items()
        >= {"policy": "step", "rho": 2}.items()
    )
    assert len((trial / "epochs.jsonl").read_text().splitlines()) == EPOCHS
    assert json.loads((trial / "summary.json").read_text())["budget"] == 3
    assert "a line for the log" in (trial / "log.txt").read_text()

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("s").experiment_id])
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1 == 7
    assert sorted(run.info.status for run in children) == [
        *["FAILED"] * 2,
        *["FINISHED"] * 4,
        "KILLED",
    ]
    assert {run.data.tags["failure"] for run in children if run.data.params.get("rho") == "3"} == {
        "every loss must be finite, got nan"
    }
    assert {"pareto.json", "pareto.html", "pareto.png"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id)
    }
    assert any("step(rho=2): map50 0.450, compute_ratio 0.667" in line for line in said)
    assert any("FAILED: every loss must be finite" in line for line in said)
    assert any(line.startswith("study s: 3 failed, the last: ") for line in said)
    assert "study s: the space has no further setting; it ends with 4 of 7 trials" in said

    said.clear()
    again = search(base(tmp_path), RHO, trials=4, **options)  # four are complete: nothing to do
    assert again == result
    assert said == ["study s: all 4 trials are done"]


@pytest.mark.ray
def test_a_search_in_which_nothing_works_says_why(two_cpus, tmp_path):
    space = tmp_path / "bad.py"
    space.write_text(
        "BASELINES = [{'freezing.policy': 'step', 'freezing.rho': 3}]\ndef space(trial): return BASELINES[0]"
    )
    with pytest.raises(
        TrainingError, match="not one trial ended well; the last one said: every loss must be finite"
    ):
        search(
            base(tmp_path, **{"tracking.mlflow": False}),
            space,
            study_name="bad",
            trials=3,
            studies_dir=tmp_path,
            progress=lambda _: None,
            run=arithmetic_run,
            begin=four_stages,
        )
    assert json.loads((tmp_path / "bad" / "pareto.json").read_text())["front"] == []


@pytest.mark.ray
def test_a_failed_trial_is_made_up_for(two_cpus, tmp_path):
    said: list[str] = []
    space = tmp_path / "some.py"
    space.write_text(
        "BASELINES = [{'freezing.policy': 'step', 'freezing.rho': 3}, {'freezing.policy': 'full'}]\n"
        "def space(trial):\n    return {'freezing.policy': 'step', 'freezing.rho': "
        "trial.suggest_categorical('rho', [2, 6])}"
    )
    options: dict[str, Any] = {
        "studies_dir": tmp_path,
        "progress": said.append,
        "run": arithmetic_run,
        "begin": four_stages,
    }
    result = search(base(tmp_path, **{"tracking.mlflow": False}), space, study_name="m", trials=2, **options)
    assert sorted(trial["state"] for trial in result["trials"]) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert "study m: 1 failed, the last: every loss must be finite, got nan" in said
    assert not any("it ends with" in line for line in said)


def without_ray(monkeypatch: pytest.MonkeyPatch, failing: set[str]) -> None:
    """Trials that only ask and tell the study; those of the policies ``failing`` fail."""

    @contextlib.contextmanager
    def no_ray(*_: Any, **__: Any) -> Iterator[Resources]:
        yield Resources(2, 0, "here")

    def tell(self: Any, at_once: int) -> None:
        missing = self._missing() + len(self._controls_left())
        while missing > 0 and (asked := self.study.ask()) is not None:
            failure = "no weights" if asked.setting.policy in failing else None
            summary = {"map50": 0.5, "compute_ratio": 0.5, "epochs": EPOCHS}
            missing -= self.study.tell(asked.number, None if failure else summary, failure)
            self._ended_well += not failure
            if failure:
                self._failures.append(failure)

    monkeypatch.setattr("dbf_ray.search.searching.connected_ray", no_ray)
    monkeypatch.setattr("dbf_ray.search.searching.Searching._run_visits", tell)


def searched_without_ray(tmp_path: Path, trials: int, space: Path = RHO) -> list[str]:
    said: list[str] = []
    config = base(tmp_path, **{"tracking.mlflow": False})
    options: dict[str, Any] = {"studies_dir": tmp_path, "run": arithmetic_run, "begin": four_stages}
    search(config, space, study_name="s", trials=trials, progress=said.append, **options)
    return said


def test_a_space_that_changed_is_refused_and_no_file_is_touched(tmp_path, monkeypatch):
    without_ray(monkeypatch, set())
    space = tmp_path / "mine.py"

    def write(choices: list[str]) -> None:
        space.write_text(
            "BASELINES = [{'freezing.policy': 'full'}]\n\ndef space(trial):\n    return {'freezing.policy': "
            f"trial.suggest_categorical('policy', {choices}), 'freezing.rho': 2}}"
        )

    write(["stp"])
    with pytest.raises(ConfigError, match="must draw valid settings"):
        searched_without_ray(tmp_path, 2, space)
    assert not (tmp_path / "s").exists()
    write(["step"])
    searched_without_ray(tmp_path, 2, space)
    (tmp_path / "s" / ".pareto.json.x.partial").touch()  # by a process that was killed
    before = {file: file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file()}
    write(["step", "warmup_step"])
    with pytest.raises(ConfigError, match=r"mine\.py: the study 's' has drawn 'policy' from the choices"):
        searched_without_ray(tmp_path, 9, space)
    before.pop(tmp_path / "s" / ".pareto.json.x.partial")
    assert {file: file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file()} == before


def test_trials_that_the_study_file_does_not_know_are_not_taken_for_its_own(tmp_path, monkeypatch):
    without_ray(monkeypatch, set())
    searched_without_ray(tmp_path, 2)
    (tmp_path / "s" / "trials" / "0").mkdir(parents=True, exist_ok=True)
    file, kept = tmp_path / "s" / "study.db", (tmp_path / "s" / "study.db").read_bytes()
    (tmp_path / "s").rename(tmp_path / "t?")
    shutil.copytree(tmp_path / "t?", tmp_path / "s2")
    config = base(tmp_path, **{"tracking.mlflow": False})
    with pytest.raises(ConfigError, match=r"the study 's2' has trials in .* is of the study 's'; put"):
        search(config, RHO, study_name="s2", studies_dir=tmp_path, run=arithmetic_run, begin=four_stages)
    (tmp_path / "t?").rename(tmp_path / "s")
    for content, why in ((b"", "is empty"), (None, "is not there")):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"study\.db {why}; put the one that it had back there"):
            searched_without_ray(tmp_path, 3)
        assert (file.read_bytes() if file.exists() else None) == content
    file.write_bytes(kept)
    (tmp_path / "s" / "trials" / "7").mkdir()  # begun since then
    with pytest.raises(ConfigError, match=r"study\.db knows no trial 7; put the one that it had back there"):
        searched_without_ray(tmp_path, 3)
    (tmp_path / "s" / "trials" / "7").rmdir()
    searched_without_ray(tmp_path, 3)


@pytest.mark.parametrize(("map50", "stays"), [(0.5, True), (None, False)])
def test_of_trials_that_failed_those_that_have_a_result_are_not_trained_anew(map50, stays, tmp_path):
    """As where the process died after its last epoch."""
    folder = tmp_path / "trials" / "3"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"map50": map50, "compute_ratio": 0.5}))
    setting = Settings(Config(), four_stages).make({"freezing.policy": "full"})
    told: list[Trial] = []
    reporter = SimpleNamespace(begin=told.append)
    book = Book(optuna.create_study(), Settings(Config(), four_stages))
    searching = SimpleNamespace(folder=tmp_path, study=SimpleNamespace(book=book))
    Searching._begin(searching, Trial(3, setting, again=True), reporter=reporter)
    assert len(told) == 1
    assert folder.exists() == stays


def test_a_baseline_that_failed_is_trained_first_by_the_command_that_is_named(tmp_path, monkeypatch):
    without_ray(monkeypatch, {"frozen"})
    said = searched_without_ray(tmp_path, 3)
    assert "study s: a baseline has no result; the same command with --trials 4 trains it first" in said
    without_ray(monkeypatch, set())
    said = searched_without_ray(tmp_path, 4)
    assert not [line for line in said if "baseline" in line]
    rows = json.loads((tmp_path / "s" / "pareto.json").read_text())["trials"]
    assert [row["number"] for row in rows] == list(range(len(rows)))
    assert (rows[1]["policy"], rows[1]["state"]) == ("frozen", "COMPLETE")


def test_a_state_that_nobody_wants_goes_though_there_is_nothing_to_train(tmp_path, monkeypatch):
    without_ray(monkeypatch, set())
    searched_without_ray(tmp_path, 2)
    store = Store(tmp_path / "s" / "states", {})
    assert store.publish(save_checkpoint(tmp_path / "checkpoints", 1, {}, {"epochs": []}), "x")
    searched_without_ray(tmp_path, 2)  # the last one was killed before it removed it
    assert store.names() == set()


def test_a_continued_study_in_which_nothing_ends_well_any_more_is_an_error(tmp_path, monkeypatch):
    without_ray(monkeypatch, set())
    searched_without_ray(tmp_path, 2)
    without_ray(monkeypatch, {"step"})
    with pytest.raises(
        TrainingError,
        match="not one trial ended well; the last one said: no weights; mend that, and the same",
    ):
        searched_without_ray(tmp_path, 4)
    without_ray(monkeypatch, set())
    searched_without_ray(tmp_path, 4)


def test_a_study_that_is_done_is_shown_where_its_cluster_is_gone(tmp_path, monkeypatch):
    without_ray(monkeypatch, set())
    searched_without_ray(tmp_path, 2)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert searched_without_ray(tmp_path, 2) == ["study s: all 2 trials are done"]
    with pytest.raises(ResourceError, match=r"cannot reach the Ray cluster at 127\.0\.0\.1:1"):
        searched_without_ray(tmp_path, 3)


@pytest.mark.ray
@pytest.mark.slow
def test_trials_with_two_workers_each_have_a_worker_group_of_their_own(two_cpus, tmp_path):
    result = search(
        base(tmp_path, **{"cluster.workers": 2, "tracking.mlflow": False}),
        RHO,
        study_name="pairs",
        trials=2,
        studies_dir=tmp_path,
        progress=print,
        run=lambda config, *, trackers, **more: arithmetic_run(config, trackers=trackers, **more),
        begin=four_stages,
    )
    assert [trial["state"] for trial in result["trials"]] == ["COMPLETE", "COMPLETE"]
    assert len((tmp_path / "pairs" / "trials" / "0" / "epochs.jsonl").read_text().splitlines()) == EPOCHS


def test_concurrency_is_what_fits():
    def at_once(wanted=None, cpus=8, gpus=0, **cluster):
        config = with_overrides(Config(), {f"cluster.{name}": value for name, value in cluster.items()})
        return concurrency(config, wanted, Resources(cpus, gpus, "here"))

    assert at_once() == 8
    assert at_once(3) == 3
    assert at_once(cpus_per_worker=3) == 2
    assert at_once(9, workers=2, cpus_per_worker=2) == 2
    assert at_once(gpu=True, gpus=2) == 2
    with pytest.raises(ResourceError, match=r"8 workers with 2 CPUs each need 16 CPUs, but here has 8"):
        at_once(workers=8, cpus_per_worker=2)


def test_a_trial_that_cannot_fit_and_a_bad_name_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("dbf_ray.search.tuner.available_resources", lambda: Resources(2, 0, "this machine"))
    options: dict[str, Any] = {"studies_dir": tmp_path, "run": arithmetic_run, "begin": four_stages}
    with pytest.raises(
        ResourceError, match=r"4 workers with 1 CPUs each need 4 CPUs, but this machine has 2"
    ):
        search(base(tmp_path, **{"cluster.workers": 4}), RHO, study_name="big", **options)
    with pytest.raises(ConfigError, match=r"a study's name .* got '\.\./x'"):
        search(base(tmp_path), RHO, study_name="../x", **options)
    assert list(tmp_path.iterdir()) == []


def test_two_searches_of_one_study_at_once_are_refused(tmp_path):
    import fcntl

    (tmp_path / "s").mkdir()
    with (tmp_path / "s" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="another process is searching the study"):
            search(
                base(tmp_path),
                RHO,
                study_name="s",
                studies_dir=tmp_path,
                run=arithmetic_run,
                begin=four_stages,
            )
