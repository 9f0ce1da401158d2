"""Records of runs: JSON lines in the run's own folder always, MLflow where it is wanted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from dbf_ray.tracking.base import MlflowTarget, Tracker
from dbf_ray.tracking.jsonl import JsonlTracker, read_epochs, read_summary, write_epochs
from dbf_ray.tracking.urls import absolute, is_sqlite

__all__ = [
    "JsonlTracker",
    "MlflowTarget",
    "Tracker",
    "make_trackers",
    "read_epochs",
    "read_summary",
    "resolve_uri",
    "write_epochs",
]

DEFAULT_URI = "sqlite:///mlflow.db"


def make_trackers(directory: Path, mlflow: MlflowTarget | None = None) -> list[Tracker]:
    """The trackers of a run in ``directory``: JSON lines first, then MLflow if there is a target and MLflow
    is installed.
    """
    trackers: list[Tracker] = [JsonlTracker(directory)]
    if mlflow is not None:
        try:
            from dbf_ray.tracking.mlflow import MlflowTracker
        except ImportError as error:
            warnings.warn(
                f"MLflow cannot be imported ({error}); the record in {directory} stays complete", stacklevel=2
            )
        else:
            trackers.append(MlflowTracker(directory, mlflow))
    return trackers


def resolve_uri(uri: str | None, environment: Mapping[str, str] | None = None) -> str:
    """The tracking URI to use: ``uri``, else MLFLOW_TRACKING_URI, else ``sqlite:///mlflow.db``; relative
    sqlite paths made absolute.

    Call it in the process that the person started: workers have other working directories and environments.
    """
    environment = os.environ if environment is None else environment
    chosen = uri or environment.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    if not is_sqlite(chosen):
        return chosen
    try:
        return absolute(chosen)
    except ImportError:  # without SQLAlchemy there is no MLflow either
        return chosen
