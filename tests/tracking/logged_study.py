"""A study's folder logged to MLflow under the project's names, by a client alone: for tests of what MLflow's
UI makes of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from dbf_ray.reports.trials import setting
from dbf_ray.tracking import read_epochs
from dbf_ray.tracking.links import view_tags

COSTS = ("device_seconds", "executed_flops", "peak_memory_bytes")


def log_study(uri: str, folder: Path) -> str:
    """Log the study in ``folder`` with its trials; returns the experiment's id."""
    client, result = MlflowClient(uri), json.loads((folder / "pareto.json").read_text())
    experiment, step = client.create_experiment(folder.name, tags=view_tags()), len(result["trials"])
    found = {"study/hypervolume": result["hypervolume"], "study/epochs_trained": result["epochs_trained"]}
    metrics = [Metric(name, value, 0, step) for name, value in found.items()]
    parent = _run(client, experiment, folder.name, {"dbf_ray.kind": "search"}, {}, metrics)
    for row in result["trials"]:
        for run in (row, *row["seeds"]):
            title = f"{setting(row)} · mobilenet_v2 · seed {run['seed']}"
            tags = {"mlflow.parentRunId": parent, "dbf_ray.kind": "trial", "dbf_ray.study": folder.name}
            tags |= {"dbf_ray.trial": str(row["number"]), "dbf_ray.seed": str(run["seed"])}
            tags |= {"dbf_ray.setting": setting(row), "dbf_ray.role": row["role"]}
            params = {"policy": row["policy"], **row["parameters"]}
            params |= {"seed": run["seed"], "epochs": run["epochs"]}
            metrics = _metrics(Path(run["run"]), row["compute_ratio"])
            child = _run(client, experiment, title, tags, params, metrics)
            client.set_terminated(child, "FINISHED" if row["state"] == "COMPLETE" else "FAILED")
    for name in ("pareto.html", "pareto.json", "pareto.png"):
        client.log_artifact(parent, str(folder / name))
    client.set_terminated(parent)
    return experiment


def _run(
    client: MlflowClient,
    experiment: str,
    name: str,
    tags: dict[str, str],
    params: dict[str, Any],
    metrics: list[Metric],
) -> str:
    run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
    named = [Param(key, str(value)) for key, value in params.items()]
    for first in range(0, len(metrics), 900):  # MLflow takes 1000 at once
        client.log_batch(run, params=named, metrics=metrics[first : first + 900])
    return run


def _metrics(run: Path, ratio: float | None) -> list[Metric]:
    found: list[Metric] = []
    for record in read_epochs(run):
        step = record["epoch"]
        values: dict[str, Any] = {f"val/{name}": record.get(name) for name in ("map50", "map75", "map50_95")}
        values |= {f"val/{name}": value for name, value in record.items() if name.startswith("ap50/")}
        values |= {"train/loss": record["loss"], "train/lr": record["lr"]}
        values |= {f"train/loss_{name}": value for name, value in record["losses"].items()}
        values |= {"freezing/num_frozen": record["frozen_stages"], "cost/compute_ratio": ratio}
        values |= {f"cost/{name}": record[name] for name in COSTS}
        values |= {"speed/images_per_second": record["images_per_second"]}
        found += [Metric(name, value, step, step) for name, value in values.items() if value is not None]
    return found
