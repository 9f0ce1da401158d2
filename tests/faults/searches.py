"""A search over rho, of trials with one worker each, on a Ray of its own."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from mlflow import MlflowClient

from dbf_ray.config import load_config
from dbf_ray.run import run
from dbf_ray.tracking import JsonlTracker
from tests.faults.place import Place, Started, epochs_of, kill, until
from tests.faults.proofs import every_epoch_once, same_weights
from tests.faults.rows import Cost, fault
from tests.tiny import as_options

EPOCHS, TRIALS = 4, 5  # all that rho has at four epochs
TRAINED = 14  # epochs, of which the trials' timelines share beginnings


def search_options(place: Place, study: str) -> list[str]:
    """Of the command."""
    keys = place.training(study, training__epochs=EPOCHS, data__train_images=32)
    keys = {key: value for key, value in keys.items() if key not in ("runs_dir", "name")}
    keys = {key: value for key, value in keys.items() if not key.startswith("freezing.")}
    keys |= {"search.studies_dir": str(place.folder / "studies"), "search.controls": "[]"}
    return [*as_options(keys), "--space", "rho", "--trials", "9", "--study", study]


def searching(place: Place, study: str) -> Started:
    """The command."""
    return place.start("jobs.search", *search_options(place, study))


def running(started: Started, study: Path) -> psutil.Process | None:
    """A trial's process, where it has trained an epoch and is not done."""
    for process in started.named("ImplicitFunc", "train_trial"):
        with contextlib.suppress(psutil.Error):
            for file in process.open_files():
                folder = Path(file.path).parent
                if folder.parent == study / "trials" and 0 < epochs_of(folder) < EPOCHS - 1:
                    return process
    return None


def whole_search(place: Place, study: Path) -> None:
    """All settings of the space are trained, each as it is when trained alone; MLflow has them all."""
    result = json.loads((study / "pareto.json").read_text())
    assert [(row["number"], row["state"]) for row in result["trials"]] == [
        (n, "COMPLETE") for n in range(TRIALS)
    ]
    assert len({(row["policy"], row["rho"]) for row in result["trials"]}) == TRIALS
    assert result["epochs_trained"] == TRAINED
    for row in result["trials"]:
        folder = study / "trials" / str(row["number"])
        every_epoch_once(folder, EPOCHS)
        same_weights(folder, alone(place, folder))
    client = MlflowClient(place.uri)
    (parent,) = (one for one in runs_of(client, study.name) if "mlflow.parentRunId" not in one.data.tags)
    children = [one for one in runs_of(client, study.name) if "mlflow.parentRunId" in one.data.tags]
    assert [one.info.status for one in (parent, *children)] == ["FINISHED"] * (1 + TRIALS)
    for one in children:
        steps = [entry.step for entry in client.get_metric_history(one.info.run_id, "train/loss")]
        assert steps == list(range(EPOCHS)), steps


def runs_of(client: MlflowClient, experiment: str) -> list[Any]:
    """All runs of a study's experiment."""
    found: list[Any] = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return found


def alone(place: Place, trial: Path) -> Path:
    """The folder of the same training, without a search."""
    folder = place.folder / "alone" / trial.parent.parent.name / trial.name
    keys = yaml.safe_load((trial / "config.yaml").read_text())
    run(load_config(None, keys), directory=folder, trackers=[JsonlTracker(folder)], quiet=True)
    return folder


@fault("search", "the driver of a search, with its own Ray: kill -9", "in its second or third trial")
def kill_the_search(place: Place) -> Cost:
    study, started = place.folder / "studies" / "search", searching(place, "search")
    until(lambda: any((study / "trials").glob("[12]/checkpoints/epoch-*")), started)
    started.killed()
    started.leaves_nothing(60.0)
    return search_to_its_end(place, study)


def search_to_its_end(place: Place, study: Path) -> Cost:
    """The same command again, with all proofs."""
    trials = study / "trials"
    begin, done = time.monotonic(), sum(map(epochs_of, trials.iterdir()))
    started = searching(place, study.name)
    until(lambda: sum(map(epochs_of, trials.iterdir())) > done, started)
    seconds = time.monotonic() - begin
    started.ends()
    whole_search(place, study)
    return Cost(seconds, "nothing")


@fault("trial", "a trial of a search: kill -9", "after 1 or 2 of its 4 epochs", "the search")
def kill_a_trial(place: Place) -> Cost:
    study, started = place.folder / "studies" / "trial", searching(place, "trial")
    process = until(lambda: running(started, study), started)
    kill(process)
    begin, done = time.monotonic(), sum(map(epochs_of, (study / "trials").iterdir()))
    until(lambda: sum(map(epochs_of, (study / "trials").iterdir())) > done, started)
    seconds = time.monotonic() - begin
    started.ends()
    whole_search(place, study)
    return Cost(seconds, "nothing")
