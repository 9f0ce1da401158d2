"""What runs in a trial's process: one complete training run with its own folder, here or on a worker group of
its own.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray.tune
import torch

from dbf_ray.cluster.ray_runtime import set_environment
from dbf_ray.cluster.train import Job, RunFunction, fit
from dbf_ray.config import Config, to_dict
from dbf_ray.errors import DbfRayError, WeightsError
from dbf_ray.run import find_resume
from dbf_ray.run import run as run_here
from dbf_ray.tracking import MlflowTarget, make_trackers, read_epochs, read_summary
from dbf_ray.values import finite

JOURNAL = "costs.jsonl"  # in a run's folder: see dbf_ray.cost.journal


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of a study share, in values that can be sent to their processes."""

    study: str
    folder: str
    mlflow: MlflowTarget | None = None
    run: RunFunction | None = None

    def directory(self, number: int) -> Path:
        """The run folder of a trial."""
        return Path(self.folder) / str(number)


def train_trial(assignment: dict[str, Any], setup: TrialSetup) -> None:
    """The Tune trainable: trains, reports each epoch, and last its outcome, ``{"summary", "records"}`` or
    ``{"failure"}``, as JSON text.

    Text, because Tune flattens nested results. A failure is reported and not raised, so that its reason
    reaches the study. Called again for the same trial (its process was killed), it resumes from the trial's
    last checkpoint.
    """
    number = assignment["number"]
    directory = setup.directory(number)
    directory.mkdir(parents=True, exist_ok=True)
    outcome: dict[str, Any]
    try:
        with _log_file(directory / "log.txt"):
            summary = read_summary(directory) or _train(assignment, setup, directory)
        outcome = {"summary": summary, "records": read_epochs(directory)}
    except DbfRayError as error:
        outcome = {"failure": str(error)}
    except Exception as error:  # one broken trial must not end a search
        outcome = {"failure": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    ray.tune.report({"outcome": json.dumps(finite(outcome))})


def _train(assignment: dict[str, Any], setup: TrialSetup, directory: Path) -> dict[str, Any]:
    config = Config.model_validate(assignment["config"])
    number, retry_of = assignment["number"], assignment["retry_of"]
    config = config.model_copy(update={"name": f"{setup.study}-{number}", "runs_dir": directory.parent})
    resume = _resume(config, directory)
    if resume is None and retry_of is not None:
        resume = _resume(config, setup.directory(retry_of))
        if resume is not None:
            _take_journal(setup.directory(retry_of), directory)
    target = _target(setup.mlflow, number, config)
    if config.cluster.workers > 1:
        set_environment()
        resumed = str(resume) if resume else None
        return fit(Job(to_dict(config), str(directory), target, resumed, setup.run, coverage=False))
    torch.set_num_threads(config.training.threads or config.cluster.cpus_per_worker)
    run = setup.run or run_here
    return run(
        config,
        directory=directory,
        trackers=make_trackers(directory, target),
        on_epoch=_report,
        resume=resume,
        coverage=False,  # the search has looked at its base
    )


def _resume(config: Config, directory: Path) -> Path | None:
    """Where a trial goes on; None, with a warning in its log, where not one checkpoint is whole: nobody is
    there to decide, and the work can be done again.
    """
    try:
        return find_resume(config, directory)
    except WeightsError as error:
        warnings.warn(f"the work of {directory} is lost: {error.__cause__ or error}", stacklevel=2)
        return None


def _take_journal(interrupted: Path, directory: Path) -> None:
    """Copy what the interrupted trial had spent beyond its checkpoint, once: from then on ``directory`` has
    the longer journal.
    """
    journal = interrupted / JOURNAL
    if journal.exists() and not (directory / JOURNAL).exists():
        shutil.copyfile(journal, directory / JOURNAL)


def _report(record: dict[str, Any], checkpoint: Path | None) -> bool:
    ray.tune.report(
        {
            "epoch": record["epoch"],
            "epoch_map50": record.get("map50"),
            "frozen_stages": record.get("frozen_stages"),
        }
    )
    return True


def _target(mlflow: MlflowTarget | None, number: int, config: Config) -> MlflowTarget | None:
    if mlflow is None:
        return None
    inside = ", ".join(f"{name}={value}" for name, value in config.freezing.parameters.items())
    name = f"{number}: {config.freezing.policy}" + (f"({inside})" if inside else "")
    return replace(mlflow, run_name=name, tags={**mlflow.tags, "dbf_ray.trial": str(number)})


@contextlib.contextmanager
def _log_file(file: Path) -> Iterator[None]:
    """What the training prints goes to the trial's folder; the search shows its own progress."""
    with (
        file.open("a", encoding="utf-8", buffering=1) as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        yield
