"""A real search: real trainings on generated scenes, two at a time, with the search space that the project
ships.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray
from mlflow import MlflowClient

from dbf_ray.config import Config, with_overrides
from dbf_ray.search import search

RHO = Path(__file__).parents[2] / "search_spaces" / "rho.py"


@pytest.mark.ray
def test_a_search_over_rho(tmp_path):
    overrides = {
        "data.train_images": 8,
        "data.val_images": 4,
        "data.image_size": 64,
        "detector.fpn_channels": 16,
        "detector.head_convs": 1,
        "training.epochs": 3,
        "training.batch_size": 4,
        "training.warmup_steps": 1,
        "training.threads": 1,
        "tracking.uri": f"sqlite:///{tmp_path}/mlflow.db",
    }
    if ray.is_initialized():
        ray.shutdown()
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 * 1024**2,
        log_to_driver=False,
    )
    said: list[str] = []
    try:
        config = with_overrides(Config(), overrides)
        result = search(config, RHO, study_name="tiny", trials=9, studies_dir=tmp_path, progress=said.append)
    finally:
        ray.shutdown()

    trials = {(trial["policy"], trial["rho"]): trial for trial in result["trials"]}
    assert set(trials) == {
        ("full", None),
        ("frozen", None),
        ("step", 2),
        ("step", 3),
    }  # all there are at 3 epochs
    assert {trial["state"] for trial in trials.values()} == {"COMPLETE"}
    costs = [
        trials[key]["compute_ratio"] for key in (("frozen", None), ("step", 3), ("step", 2), ("full", None))
    ]
    assert costs == sorted(set(costs))
    assert costs[-1] == 1.0
    assert result["front"]
    assert any("no further setting" in line for line in said)
    for trial in trials.values():
        records = [
            json.loads(line) for line in (Path(trial["run"]) / "epochs.jsonl").read_text().splitlines()
        ]
        assert [record["epoch"] for record in records] == [0, 1, 2]
        assert records[-1]["map50"] == pytest.approx(trial["map50"])  # the objective is the last epoch's

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == 4
    for run in children:
        assert run.info.status == "FINISHED"
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, "map50")] == [0, 1, 2]
