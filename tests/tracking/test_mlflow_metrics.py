"""Which numbers of a run MLflow shows in the end, and what becomes of those that it refuses."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from dbf_ray.config import Config, to_dict
from dbf_ray.tracking import MlflowTarget
from dbf_ray.tracking.mlflow import MlflowTracker
from dbf_ray.tracking.naming import epoch_metrics

CONFIG = to_dict(Config())
SUMMARY = {"map50": 0.2, "device_seconds": 30.0, "epochs": 3}


def record(epoch: int) -> dict:
    return {"epoch": epoch, "loss": 1.0 - 0.1 * epoch, "map50": 0.1 * epoch, "device_seconds": 10.0}


def steps(client: MlflowClient, run_id: str, key: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run_id, key)]


def test_the_summary_has_the_last_word_on_memory_and_on_a_run_that_was_stopped_and_went_on(uri, tmp_path):
    tracker = MlflowTracker(tmp_path / "a", MlflowTarget(uri, "exp"))
    tracker.start(CONFIG, {}, 0)
    for epoch, peak in enumerate((900, 300)):
        tracker.epoch({**record(epoch), "peak_memory_bytes": peak, "mean_memory_bytes": peak / 2})
    tracker.finish({**SUMMARY, "epochs": 2, "peak_memory_bytes": 900, "mean_memory_bytes": 400}, [])
    metrics = MlflowClient(uri).get_run(tracker.run_id).data.metrics
    assert (metrics["peak_memory_bytes"], metrics["mean_memory_bytes"]) == (900, 400)
    assert (metrics["epoch_peak_memory_bytes"], metrics["epoch_mean_memory_bytes"]) == (300, 150)

    again = MlflowTracker(tmp_path / "a", MlflowTarget(uri, "exp"))
    again.start(CONFIG, {}, 2)
    again.epoch(record(2))
    again.finish({**SUMMARY, "device_seconds": 77.0, "peak_memory_bytes": 950}, [])
    metrics = MlflowClient(uri).get_run(tracker.run_id).data.metrics
    assert (metrics["total_device_seconds"], metrics["peak_memory_bytes"]) == (77.0, 950)


def test_class_names_with_odd_signs_are_logged(uri, tmp_path):
    odd = {
        "ap50/plane(large)": 0.1,
        "ap50/a+b": 0.2,
        "ap50/a&b": 0.3,
        "ap50/x//y": 0.4,
        "ap50/..": 0.5,
        "ap50/" + "l" * 300: 0.6,
    }
    tracker = MlflowTracker(tmp_path / "a", MlflowTarget(uri, "exp"))
    tracker.start(CONFIG, {}, 0)
    for epoch in range(2):
        tracker.epoch({**record(epoch), **odd})
    tracker.finish(SUMMARY)
    run = MlflowClient(uri).get_run(tracker.run_id)
    names = ["plane_large_", "a_b", "a_b_2", "x/_/y", "_", "l" * 235]
    assert [run.data.metrics[f"ap50/{name}"] for name in names] == list(odd.values())
    assert steps(MlflowClient(uri), tracker.run_id, "loss") == [0, 1]
    assert run.info.status == "FINISHED"


def test_what_the_store_refuses_is_left_out_and_what_follows_is_logged(uri, tmp_path, monkeypatch):
    tracker = MlflowTracker(tmp_path / "a", MlflowTarget(uri, "exp"))
    tracker.start(CONFIG, {}, 0)
    names = "dbf_ray.tracking.mlflow.epoch_metrics"
    monkeypatch.setattr(
        names, lambda record: {**epoch_metrics(record), **({"a+b": 1.0} if record["epoch"] == 0 else {})}
    )
    with pytest.warns(UserWarning, match=r"refused a part of the record, which it will lack .*a\+b"):
        tracker.epoch(record(0))
    for epoch in (1, 2):
        tracker.epoch(record(epoch))
    tracker.finish(SUMMARY)
    client = MlflowClient(uri)
    assert steps(client, tracker.run_id, "loss") == [1, 2]
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
