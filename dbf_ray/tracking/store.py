"""A client of MLflow's store that says nothing: with an explicit URI, so that MLflow's global state is never
touched, and without MLflow's own logging, of which a failed call gives 70 lines.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from dbf_ray.tracking.urls import sqlite_file
from dbf_ray.uris import hidden
from dbf_ray.values import plain_text

# One request waits at most about 2 x 10 s (MLflow's own defaults: 8 x 120 s); a person's own settings win.
LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
TALKATIVE = ("mlflow", "alembic", "sqlalchemy", "urllib3", "botocore", "boto3")
MOST_METRICS = 1000  # in one call, which a store takes as a whole or not at all
LONGEST_TEXT = 5000  # of a tag's or parameter's value
REFUSED = "INVALID_PARAMETER_VALUE"  # MLflow's error code: it would be refused again


class _Quiet(logging.Filter):
    """Drops what a library logs in a thread that is within :func:`quiet`."""

    here = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        return not (getattr(self.here, "quiet", False) and record.name.startswith(TALKATIVE))


_QUIET = _Quiet()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Call MLflow without its logging: whoever calls says in one line what went wrong."""
    loggers = [logging.getLogger()] + [logging.getLogger(name) for name in TALKATIVE]
    for handler in [handler for logger in loggers for handler in logger.handlers] + [logging.lastResort]:
        if handler is not None and _QUIET not in handler.filters:
            handler.addFilter(_QUIET)
    before = getattr(_QUIET.here, "quiet", False)
    _QUIET.here.quiet = True
    try:
        yield
    finally:
        _QUIET.here.quiet = before


class Store:
    """A client that is made, and its database migrated, on first use by one process at a time."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}
        self.refused: list[str] = []

    @property
    def client(self) -> MlflowClient:
        """MLflow's own."""
        if self._client is None:
            for name, value in LIMITS.items():
                os.environ.setdefault(name, value)
            if (file := sqlite_file(self.uri)) is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            with _one_process(self.uri):
                self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return self._client

    def experiment(self, name: str, tags: Mapping[str, str] | None = None) -> str:
        """The experiment's id; it is made if there is none, brought back if it was deleted, and gets those of
        ``tags`` that it lacks.
        """
        if name in self._experiments and not tags:
            return self._experiments[name]
        client, tags = self.client, dict(tags or {})
        with _one_process(self.uri):
            found = client.get_experiment_by_name(name)
            if found is None:
                try:
                    made = client.create_experiment(name, _artifacts_beside(self.uri, name), tags)
                    self._experiments[name] = made
                    return made
                except Exception:  # another machine may have been quicker
                    found = client.get_experiment_by_name(name)
                    if found is None:
                        raise
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            for key in tags.keys() - found.tags.keys():
                client.set_experiment_tag(found.experiment_id, key, tags[key])
        self._experiments[name] = found.experiment_id
        return found.experiment_id

    def run(self, run_id: str) -> Any:
        """The run; None if the store does not have it (deleted, or another store)."""
        try:
            run = self.client.get_run(run_id)
        except Exception as error:
            if is_absent(error):
                return None
            raise
        return None if run.info.lifecycle_stage == "deleted" else run

    def find(self, experiment: str, tag: str, value: str) -> str | None:
        """The id of the newest run with a tag."""
        where = f"tags.`{tag}` = '{value}'"
        runs = self.client.search_runs([experiment], where, max_results=1, order_by=["start_time DESC"])
        return runs[0].info.run_id if runs else None

    def create(self, experiment: str, name: str, tags: Mapping[str, str], started: int) -> str:
        """A new run."""
        run = self.client.create_run(experiment, started, texts(tags), plain_text(name))
        return str(run.info.run_id)

    def steps(self, run_id: str, metric: str) -> set[int]:
        """At which steps a run has a metric."""
        return {found.step for found in self.client.get_metric_history(run_id, metric)}

    def log(self, run_id: str, items: Sequence[Metric | Param | RunTag]) -> None:
        """Log metrics, parameters and tags. What is refused as invalid would be refused again: it is left out
        and noted in ``refused``.
        """
        if not items:
            return
        try:
            self.client.log_batch(
                run_id,
                metrics=[item for item in items if isinstance(item, Metric)],
                params=[item for item in items if isinstance(item, Param)],
                tags=[item for item in items if isinstance(item, RunTag)],
            )
        except Exception as error:
            if getattr(error, "error_code", None) != REFUSED:
                raise
            if len(items) == 1:
                self.refused.append(f"{items[0].key} ({in_a_line(error, self.uri)})")
                return
            middle = len(items) // 2
            self.log(run_id, items[:middle])
            self.log(run_id, items[middle:])


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Values of tags and parameters as text that every store takes."""
    return {
        name: plain_text(str(value))[:LONGEST_TEXT] for name, value in values.items() if value is not None
    }


def is_absent(error: BaseException) -> bool:
    """Whether a store says that it does not have what it was asked for."""
    return "RESOURCE_DOES_NOT_EXIST" in str(getattr(error, "error_code", error))


def in_a_line(error: BaseException, uri: str) -> str:
    """What a call said, in one line and without user and password."""
    return f"{type(error).__name__}: {hidden(' '.join(str(error).split()), uri)[:300]}"


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
