"""A study in MLflow: a parent run, and a child for each trial."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from dbf_ray.config import Config
from dbf_ray.run import tracking_uri
from dbf_ray.tracking import MlflowTarget


def parent_run(config: Config, folder: Path, trials: int, space_file: Path) -> Any:
    """The parent run of the study in ``folder``, or None without MLflow: off, not installed, or not
    reachable.
    """
    if not config.tracking.mlflow:
        return None
    try:
        from dbf_ray.tracking.mlflow import MlflowStudy
    except ImportError:
        return None
    parameters = {
        "space": space_file.name,
        "trials": trials,
        "seed": config.seed,
        "epochs": config.training.epochs,
        "backbone": config.detector.backbone,
        "detector": config.detector.name,
        "data": config.data.name,
        "accuracy": config.search.accuracy,
        "cost": config.search.cost,
    }
    parent = MlflowStudy(folder, tracking_uri(config), folder.name, parameters)
    return parent if parent.run_id else None


def target(config: Config, study: str, parent: Any) -> MlflowTarget | None:
    """Where the trials go; None without a parent run."""
    if parent is None:
        return None
    return MlflowTarget(tracking_uri(config), study, None, parent.run_id, {"dbf_ray.study": study})


def end_trial(config: Config, directory: Path, failure: str) -> None:
    """Mark the run of the trial in ``directory`` failed, if it has one."""
    with contextlib.suppress(ImportError):
        from dbf_ray.tracking.mlflow import end_abandoned_run

        end_abandoned_run(directory, tracking_uri(config), failure)
