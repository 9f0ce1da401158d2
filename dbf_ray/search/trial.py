"""What runs in a trial's process: one complete training run with its own folder, here or on a worker group of
its own.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.tune
import torch

from dbf_ray import stopping
from dbf_ray.cluster.ray_runtime import set_environment
from dbf_ray.cluster.train import Job, RunFunction, fit
from dbf_ray.config import Config, elsewhere, to_dict, with_overrides
from dbf_ray.errors import DbfRayError, WeightsError
from dbf_ray.evaluate import config_of, metrics_of
from dbf_ray.run import find_resume
from dbf_ray.run import run as run_here
from dbf_ray.search.mlflow_runs import of_trial
from dbf_ray.search.states import Names
from dbf_ray.search.store import Store
from dbf_ray.tracking import MlflowTarget, make_trackers, read_epochs, read_summary
from dbf_ray.training.checkpoint import list_checkpoints, newest_epoch, read_record, whole_checkpoint
from dbf_ray.values import finite

Evaluate = Callable[[Path, Config], dict[str, float]]


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of a study share, in values that can be sent to their processes."""

    study: str
    folder: str
    store: Store
    mlflow: MlflowTarget | None = None
    run: RunFunction | None = None
    evaluate: Evaluate | None = None

    def directory(self, name: str) -> Path:
        """The run folder of a trial or one of its repeats."""
        return Path(self.folder) / name


def name_of(number: int, seed: int | None = None) -> str:
    """The name of a trial's folder, or of that of its repeat with another seed."""
    return str(number) if seed is None else f"{number}-seed-{seed}"


@dataclass(frozen=True)
class Keeping:
    """Called after an epoch, with its record and checkpoint: publishes those that others will begin at.

    Attributes:
        states: names by the epochs done.
    """

    store: Store
    states: Mapping[int, str]

    def __call__(self, record: Mapping[str, Any], checkpoint: Path | None) -> None:
        """Publish a checkpoint if it is to be kept; a training must not end where that cannot be done."""
        state = self.states.get(record["epoch"] + 1)
        if state is not None and checkpoint is not None:
            try:
                self.store.publish(checkpoint, state)
            except (OSError, DbfRayError) as error:
                warnings.warn(f"state {state} cannot be kept for other trials: {error}", stacklevel=2)


def leave(store: Store, directory: Path, names: Names) -> None:
    """Make the newest checkpoint of a trial that failed a state: what it has trained others need not train.

    Args:
        store: of the study.
        directory: the trial's run folder.
        names: of its states.
    """
    checkpoints = list_checkpoints(directory / "checkpoints")
    if done := newest_epoch(directory / "checkpoints"):
        Keeping(store, {done: names[done]})({"epoch": done - 1}, checkpoints[-1])


def train_trial(assignment: dict[str, Any], setup: TrialSetup) -> None:
    """The Tune trainable: trains, reports each epoch, and last its outcome as JSON text: ``{"summary",
    "records"}``, ``{"failure"}``, or ``{"stopped"}`` where the search was asked to stop. Where the assignment
    says ``validate``, it evaluates the last checkpoint of a trial that is done, and the outcome is
    ``{"metrics"}``.

    Text, because Tune flattens nested results. A failure is reported and not raised, so that its reason
    reaches the study. It begins at the deepest of the trial's own last checkpoint, where it was interrupted,
    and the states on its way that the store has.
    """
    directory = setup.directory(name_of(assignment["number"], assignment.get("seed")))
    directory.mkdir(parents=True, exist_ok=True)
    outcome: dict[str, Any]
    try:
        with _log_file(directory / "log.txt"):
            if "validate" in assignment:
                outcome = {"metrics": _validate(assignment, setup, directory)}
            else:
                summary = read_result(directory) or _train(assignment, setup, directory)
                outcome = {"summary": summary, "records": read_epochs(directory)}
    except stopping.Stopped as stopped:
        outcome = {"stopped": stopped.number}
    except DbfRayError as error:
        outcome = {"failure": str(error)}
    except Exception as error:  # one broken trial must not end a search
        outcome = {"failure": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    ray.tune.report({"outcome": json.dumps(finite(outcome))})


def read_result(directory: Path) -> dict[str, Any] | None:
    """The summary of a trial that was trained to its end, else None."""
    summary = read_summary(directory)
    return None if summary is None or summary.get("stopped_early") else summary


def _train(assignment: dict[str, Any], setup: TrialSetup, directory: Path) -> dict[str, Any]:
    config = Config.model_validate(assignment["config"])
    name = f"{setup.study}-{directory.name}"
    config = config.model_copy(update={"name": name, "runs_dir": directory.parent})
    keeping = Keeping(setup.store, dict(assignment["keep"]))
    resume, begin = _resume(config, directory), None
    done = 0 if resume is None else epochs_done(resume)
    if (found := _deepest(setup.store, assignment["begin"])) is not None and epochs_done(found) > done:
        resume, begin = None, found
    elif resume is not None:  # it may have been killed before it published this
        keeping({"epoch": done - 1}, resume)
    target = setup.mlflow
    if target is not None:
        target = of_trial(target, assignment["about"], config, assignment.get("seed"))
    if config.cluster.workers > 1:
        set_environment()
        resumed, begun = (None if path is None else str(path) for path in (resume, begin))
        tree = to_dict(config)
        job = Job(
            tree, str(directory), target, resumed, begun, keeping, setup.run, coverage=False, watch=False
        )
        return fit(job)
    torch.set_num_threads(config.training.threads or config.cluster.cpus_per_worker)
    run = setup.run or run_here
    return run(
        config,
        directory=directory,
        trackers=make_trackers(directory, target),
        on_epoch=partial(_report, keeping, config.search.accuracy),
        resume=resume,
        begin=begin,
        coverage=False,  # the search has looked at its base
    )


def _validate(assignment: dict[str, Any], setup: TrialSetup, directory: Path) -> dict[str, Any]:
    """Metrics on val of the last checkpoint of the training in ``directory``; and which one it is."""
    study = Config.model_validate(assignment["config"])
    torch.set_num_threads(study.training.threads or study.cluster.cpus_per_worker)
    checkpoint = whole_checkpoint(Path(assignment["validate"]))
    metrics = (setup.evaluate or metrics_of)(checkpoint, trial_config(checkpoint, study))
    return {**metrics, "checkpoint": str(checkpoint)}


def trial_config(checkpoint: Path, study: Config) -> Config:
    """The configuration that a checkpoint was trained with, with the places and resources of the study."""
    trained = config_of(checkpoint)
    changes = elsewhere(trained, study)  # nothing of them is for Ray: an evaluation needs no workers
    return with_overrides(trained, {k: v for k, v in changes.items() if not k.startswith("cluster.")})


def _deepest(store: Store, states: Sequence[str]) -> Path | None:
    """The first of ``states`` that is whole: one that is torn, or gone with its machine, is passed over."""
    for state in states:
        if store.whole(state):
            return store[state]
        warnings.warn(f"state {state} is not whole in {store.folder}; one before it is used", stacklevel=2)
    return None


def epochs_done(checkpoint: Path) -> int:
    """How many epochs a whole checkpoint has."""
    return len(read_record(checkpoint)["epochs"])


def _resume(config: Config, directory: Path) -> Path | None:
    """Where a trial goes on; None, with a warning in its log, where not one checkpoint is whole: nobody is
    there to decide, and the work can be done again.
    """
    try:
        return find_resume(config, directory)
    except WeightsError as error:
        warnings.warn(f"the work of {directory} is lost: {error.__cause__ or error}", stacklevel=2)
        return None


def _report(keeping: Keeping, accuracy: str, record: dict[str, Any], checkpoint: Path | None) -> bool:
    keeping(record, checkpoint)
    ray.tune.report(
        {
            "epoch": record["epoch"],
            "accuracy": record.get(accuracy),
            "frozen_stages": record.get("frozen_stages"),
        }
    )
    return True


@contextlib.contextmanager
def _log_file(file: Path) -> Iterator[None]:
    """What the training prints goes to the trial's folder; the search shows its own progress."""
    with (
        file.open("a", encoding="utf-8", buffering=1) as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        yield
