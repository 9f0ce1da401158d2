"""Records of runs: JSON lines in the run's own folder always, MLflow where it is wanted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dbf_ray.tracking.base import MlflowTarget, Tracker
from dbf_ray.tracking.jsonl import JsonlTracker, read_epochs, read_summary, write_epochs
from dbf_ray.tracking.spool import Spool, folders, public
from dbf_ray.tracking.urls import absolute, is_sqlite

if TYPE_CHECKING:
    from dbf_ray.tracking.delivery import Delivered

__all__ = [
    "JsonlTracker",
    "MlflowTarget",
    "Tracker",
    "deliver",
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


def deliver(root: Path, uri: str | None = None) -> Delivered:
    """Deliver to MLflow what waits in ``root``: a run, a study, or a folder of such. What runs is left to its
    own process; a run whose process is gone is noted as killed.

    Args:
        root: the folder.
        uri: store that takes all of it; None: each run's own.

    Raises:
        ImportError: MLflow is not installed.
    """
    from dbf_ray.tracking.delivery import Delivered, deliver_all
    from dbf_ray.tracking.store import Store

    if uri is not None:
        return deliver_all(root, Store(resolve_uri(uri)))
    cards = [card for folder in folders(root) if (card := Spool(folder).read()) is not None]
    usual = resolve_uri(None)  # with user and password, which are not on disk
    found = [
        deliver_all(root, Store(usual if public(usual) == own else own), own)
        for own in dict.fromkeys(card["uri"] for card in cards)
    ]
    failure = next((one.failure for one in found if one.failure is not None), None)
    return Delivered(sum(one.runs for one in found), sum(one.pending for one in found), failure)
