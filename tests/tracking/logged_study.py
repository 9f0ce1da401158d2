"""A study's folder in MLflow, as the project delivers it: ``mlflow.json`` as its trackers write it, then
delivery.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient

from dbf_ray.tracking import deliver
from dbf_ray.tracking.naming import parameters_of
from dbf_ray.tracking.spool import FAILED, FINISHED, Spool, now
from dbf_ray.tracking.words import readable_name, setting_name


def log_study(uri: str, folder: Path) -> str:
    """Deliver the finished study in ``folder`` with its trials; returns the experiment's id."""
    result = json.loads((folder / "pareto.json").read_text())
    study = {"uri": uri, "experiment": folder.name}
    params = {"space": "rho.py", "trials": str(len(result["trials"])), "accuracy": "map50"}
    _card(folder, study, "search", f"search · {folder.name}", {}, params, FINISHED)
    for row in result["trials"]:
        for run in (row, *row["seeds"]):
            _trial(Path(run["run"]), folder, study, row, run)
    done = deliver(folder, uri)
    assert (done.pending, done.failure) == (0, None)
    experiment = MlflowClient(uri).get_experiment_by_name(folder.name)
    assert experiment is not None
    return str(experiment.experiment_id)


def _trial(directory: Path, folder: Path, study: dict[str, str], row: Any, run: Any) -> None:
    config = yaml.safe_load((directory / "config.yaml").read_text())
    setting = setting_name(row["policy"], row["parameters"], row["overrides"])
    detector = config["detector"]
    name = readable_name(setting, detector["name"], detector["backbone"], run["seed"])
    tags = {"dbf_ray.study": folder.name, "dbf_ray.trial": str(row["number"]), "dbf_ray.role": row["role"]}
    tags |= {"dbf_ray.setting": setting, "dbf_ray.seed": str(run["seed"])}
    base = yaml.safe_load((folder / "config.yaml").read_text())["training"]["epochs"]
    more = {"parent": str(folder), "full_share": config["training"]["epochs"] / base}
    status = FINISHED if row["state"] == "COMPLETE" else FAILED
    _card(directory, study, "trial", name, tags, parameters_of(config, run), status, **more)


def _card(
    directory: Path,
    study: dict[str, str],
    kind: str,
    name: str,
    tags: dict[str, str],
    params: dict[str, str],
    status: str,
    **more: Any,
) -> None:
    card = {"kind": kind, "run_name": name, "tags": {**tags, "dbf_ray.kind": kind}, "params": params}
    card |= {"datasets": [], "metrics": {}, "parent": None, "full_share": 1.0, "files": [], "note": None}
    card |= more
    began = now()
    ends = {"status": status, "reason": None, "started": began, "ended": began + 60_000, "run_id": None}
    key = f"{study['experiment']}-{directory.name}"
    Spool(directory).change(**study, **card, **ends, attempted=False, delivered={}, key=key)
