"""Runs and studies in MLflow, through ``MlflowClient`` with an explicit URI: MLflow's global state is never
touched.

Tracking must not cost a training: every call to the store goes through a to-do list
(:mod:`dbf_ray.tracking.todo`), which never raises. The run's own folder has the whole record anyway.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from dbf_ray.files import write_json
from dbf_ray.tracking.base import MlflowTarget
from dbf_ray.tracking.jsonl import read_epochs
from dbf_ray.tracking.naming import EPOCHS_DONE, epoch_metrics, parameters_of, summary_metrics
from dbf_ray.tracking.todo import ToDoList, public
from dbf_ray.tracking.urls import sqlite_file
from dbf_ray.values import finite, plain_text

# One request waits at most about 2 x 10 s (MLflow's own defaults: 8 x 120 s); a person's own settings win.
LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
IDENTITY = "mlflow.json"  # in the run's folder: which MLflow run it is


class MlflowTracker:
    """One MLflow run for one training run; re-opened, without repeating steps, when the training is
    resumed.
    """

    def __init__(self, directory: Path, target: MlflowTarget) -> None:
        """``directory``: the run's folder, which keeps the MLflow run's id and, in epochs.jsonl, the epochs
        to catch up on.
        """
        self.directory = Path(directory)
        self.target = target
        self.run_id: str | None = None
        self._store = _Store(target.uri)
        self._work = ToDoList(target.uri, f"the record in {self.directory} stays complete")
        self._steps: set[int] | None = None  # logged already; None: ask the store

    def start(self, config: dict[str, Any], facts: dict[str, Any], resume_epoch: int) -> None:
        """Open the run (the one this folder had, if any) with parameters, tags and config.yaml; log resumed
        epochs it does not have.
        """

        def open_run() -> None:
            if self.run_id is None:
                self.run_id = self._open(config, facts)
            self._store.client.log_text(
                self.run_id, yaml.safe_dump(finite(config), sort_keys=False), "config.yaml"
            )

        self._work.do(open_run, vital=True)
        for record in read_epochs(self.directory):
            if record["epoch"] < resume_epoch:
                self.epoch(record)

    def epoch(self, record: dict[str, Any]) -> None:
        """Log the epoch's numbers at ``step=epoch``, unless that step is there."""
        record = finite(record)
        self._work.do(lambda: self._log_step(record["epoch"], epoch_metrics(record)))

    def finish(self, summary: dict[str, Any], artifacts: list[Path]) -> None:
        """Log the summary and the artifacts; the run is FINISHED."""
        summary = finite(summary)

        def log_summary() -> None:
            assert self.run_id is not None  # the to-do list keeps its order
            step = max(int(summary.get("epochs") or 1) - 1, 0)
            present = self._store.client.get_run(self.run_id).data.metrics
            metrics = {
                name: value for name, value in summary_metrics(summary).items() if present.get(name) != value
            }
            tags = {name: str(summary[name]) for name in ("checkpoint", "machine") if summary.get(name)}
            self._store.log(self.run_id, step=step, metrics=metrics, tags=tags)

        def end_run() -> None:
            assert self.run_id is not None
            for artifact in artifacts:
                self._store.client.log_artifact(self.run_id, str(artifact))
            self._store.client.set_terminated(self.run_id, "FINISHED")

        self._work.do(log_summary, end_run, last=True)

    def fail(self, reason: str) -> None:
        """The run is FAILED, with the reason as tag ``failure``."""

        def mark_failed() -> None:
            assert self.run_id is not None
            self._store.log(self.run_id, step=0, tags={"failure": reason[:4000]})
            self._store.client.set_terminated(self.run_id, "FAILED")

        self._work.do(mark_failed, last=True)

    def _open(self, config: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
        experiment = self._store.experiment(self.target.experiment)
        known = _identity(self.directory, self.target.uri)
        if known and self._store.reopen(known):
            return known
        tags = dict(self.target.tags)
        if self.target.parent_run_id:
            tags["mlflow.parentRunId"] = self.target.parent_run_id
        run_id = self._store.create(experiment, self.target.run_name or self.directory.name, tags)
        self._steps = set()
        _remember(self.directory, self.target.uri, run_id)
        self._store.log(run_id, step=0, params=parameters_of(config, facts))
        return run_id

    def _log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        assert self.run_id is not None
        if self._steps is None:
            self._steps = {
                metric.step for metric in self._store.client.get_metric_history(self.run_id, EPOCHS_DONE)
            }
        if step in self._steps:
            return
        # should the call fail half-way, the store is asked before the next try
        steps, self._steps = (self._steps, None)
        self._store.log(self.run_id, step=step, metrics=metrics)
        self._steps = steps | {step}


class MlflowStudy:
    """The parent run of a study, in an experiment of the study's own; trials are its children."""

    def __init__(self, directory: Path, uri: str, study: str, parameters: Mapping[str, Any]) -> None:
        """``directory``: the study's folder. ``run_id`` is None while MLflow cannot be reached."""
        self.directory = Path(directory)
        self.run_id: str | None = None
        self._store = _Store(uri)
        self._work = ToDoList(uri, f"the study in {self.directory} stays complete")

        def open_run() -> None:
            if self.run_id is not None:
                return
            experiment = self._store.experiment(study)
            known = _identity(self.directory, uri)
            if known and self._store.reopen(known):
                self.run_id = known
                return
            run_id = self._store.create(experiment, study, {"dbf_ray.kind": "study"})
            _remember(self.directory, uri, run_id)
            self._store.log(
                run_id,
                step=0,
                params={name: str(value) for name, value in parameters.items() if value is not None},
            )
            self.run_id = run_id

        self._work.do(open_run, vital=True)

    def progress(self, trials_done: int, metrics: Mapping[str, float]) -> None:
        """Log the study's numbers (hypervolume, size of the front, best map50) at ``step=trials_done``."""
        self._work.do(lambda: self._store.log(str(self.run_id), step=trials_done, metrics=metrics))

    def finish(self, artifacts: list[Path], failure: str | None = None) -> None:
        """Log the study's files; the parent run is FINISHED, or FAILED for ``failure``."""

        def finish_run() -> None:
            for artifact in artifacts:
                self._store.client.log_artifact(str(self.run_id), str(artifact))
            if failure:
                self._store.log(str(self.run_id), step=0, tags={"failure": failure[:4000]})
            self._store.client.set_terminated(str(self.run_id), "FAILED" if failure else "FINISHED")

        self._work.do(finish_run, last=True)


def end_abandoned_run(directory: Path, uri: str, reason: str) -> None:
    """Mark the MLflow run of the run folder ``directory`` FAILED where its process died before it could;
    quiet if there is none.
    """
    run_id = _identity(directory, uri)
    if run_id is None:
        return
    tracker = MlflowTracker(directory, MlflowTarget(uri, "unused"))
    tracker.run_id = run_id
    tracker.fail(reason)


class _Store:
    """A client that is made, and its database migrated, on first use by one process at a time."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            for name, value in LIMITS.items():
                os.environ.setdefault(name, value)
            for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking.client"):
                logging.getLogger(name).setLevel(logging.WARNING)
            if (file := sqlite_file(self._uri)) is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            with _one_process(self._uri):
                self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        return self._client

    def experiment(self, name: str) -> str:
        """The experiment's id; it is made if there is none, and brought back if it was deleted."""
        client = self.client
        with _one_process(self._uri):
            found = client.get_experiment_by_name(name)
            if found is None:
                try:
                    return client.create_experiment(
                        name, artifact_location=_artifacts_beside(self._uri, name)
                    )
                except Exception:  # another machine may have been quicker
                    found = client.get_experiment_by_name(name)
                    if found is None:
                        raise
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def reopen(self, run_id: str) -> bool:
        """Set the run back to RUNNING; False if the store does not have it (deleted, or another store)."""
        try:
            run = self.client.get_run(run_id)
        except Exception as error:
            if "RESOURCE_DOES_NOT_EXIST" in str(getattr(error, "error_code", error)):
                return False
            raise
        if run.info.lifecycle_stage == "deleted":
            return False
        self.client.update_run(run_id, status="RUNNING")
        if "failure" in run.data.tags:
            self.client.delete_tag(run_id, "failure")
        return True

    def create(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        texts = {tag: plain_text(value) for tag, value in tags.items()}
        return self.client.create_run(experiment, run_name=plain_text(name), tags=texts).info.run_id

    def log(
        self,
        run_id: str,
        *,
        step: int,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, step) for name, value in (metrics or {}).items()],
            params=[Param(name, plain_text(value)) for name, value in (params or {}).items()],
            tags=[RunTag(name, plain_text(value)) for name, value in (tags or {}).items()],
        )


@contextlib.contextmanager
def _one_process(uri: str) -> Iterator[None]:
    """Hold a lock on this machine for a database URI (its first use migrates the schema); a server guards
    itself.
    """
    if urlsplit(uri).scheme in ("http", "https"):
        yield
        return
    digest = hashlib.sha256(uri.encode(errors="surrogateescape")).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"dbf_ray-{os.getuid()}-{digest}.lock"):
        yield


def _artifacts_beside(uri: str, experiment: str) -> str | None:
    """Without a server, artifacts lie beside the sqlite file (MLflow's default would be the working directory
    of whoever asks).
    """
    file = sqlite_file(uri)
    if file is None:
        return None
    return (file.resolve().parent / "mlartifacts" / experiment.replace("/", "_")).as_uri()


def _identity(directory: Path, uri: str) -> str | None:
    try:
        known = json.loads((directory / IDENTITY).read_text(encoding="utf-8"))
        return str(known["run_id"]) if known["uri"] == public(uri) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(directory: Path, uri: str, run_id: str) -> None:
    write_json(directory / IDENTITY, {"uri": public(uri), "run_id": run_id})
