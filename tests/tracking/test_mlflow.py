"""Runs in MLflow, in a real sqlite store and on a real server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from dbf_ray.config import Config, to_dict, with_overrides
from dbf_ray.tracking import JsonlTracker, MlflowTarget, make_trackers, read_epochs
from dbf_ray.tracking.mlflow import MlflowStudy, MlflowTracker, end_abandoned_run

CONFIG = to_dict(
    with_overrides(Config(), {"freezing.policy": "step", "freezing.rho": 4, "training.epochs": 3})
)
SUMMARY = {
    "map50": 0.2,  # as the last epoch has it
    "map50_best": 0.6,
    "compute_ratio": 0.7,
    "device_seconds": 30.0,
    "executed_flops": 9e12,
    "epochs": 3,
    "checkpoint": "/runs/a/checkpoints/epoch_0002",
}


def record(epoch: int) -> dict:
    losses = {"box": 0.1, "cls": float("nan")}
    return {
        "epoch": epoch,
        "loss": 1.0 - 0.1 * epoch,
        "losses": losses,
        "map50": 0.1 * epoch,
        "device_seconds": 10.0,
        "frozen_stages": 4,
    }


def steps(client: MlflowClient, run_id: str, key: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run_id, key)]


def test_paths_that_are_no_text_are_escaped(uri, tmp_path):
    """Folders and files may be called by any bytes; a store takes text alone."""
    name = os.fsdecode(b"\xb0\xa1")
    tracker = MlflowTracker(tmp_path / name, MlflowTarget(uri, "exp", tags={"place": name}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracker.start({**CONFIG, "data": {**CONFIG["data"], "name": f"mine{name}:Reader"}}, {}, 0)
        tracker.fail(f"{name}.png: images must be decodable")
    run = MlflowClient(uri).get_run(tracker.run_id)
    assert run.info.run_name == run.data.tags["place"] == "\\udcb0\\udca1"
    assert run.data.tags["failure"].startswith("\\udcb0\\udca1.png")
    assert run.data.params["data"] == "mine\\udcb0\\udca1:Reader"


def test_one_run_with_parameters_epochs_costs_and_files(uri, tmp_path):
    plot = tmp_path / "curve.png"
    plot.write_bytes(b"png")
    tracker = MlflowTracker(tmp_path / "a", MlflowTarget(uri, "exp", tags={"kind": "test"}))
    tracker.start(CONFIG, {"num_stages": 4, "backbone_share": 0.58, "frozen_prefixes": [0, 4, 4]}, 0)
    for epoch in range(3):
        tracker.epoch(record(epoch))
    tracker.finish(SUMMARY, [plot])

    client = MlflowClient(uri)
    run = client.get_run(tracker.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "exp"
    assert run.info.run_name == "a"
    assert run.info.status == "FINISHED"
    assert {
        name: run.data.params[name]
        for name in ("policy", "rho", "seed", "epochs", "image_size", "num_stages")
    } == {
        "policy": "step",
        "rho": "4",
        "seed": "0",
        "epochs": "3",
        "image_size": "384",
        "num_stages": "4",
    }
    assert float(run.data.params["lr"]) == 2e-4
    assert len(run.data.params) < 30
    assert steps(client, tracker.run_id, "loss") == [0, 1, 2]
    assert steps(client, tracker.run_id, "map50") == [0, 1, 2]
    assert run.data.metrics["losses/box"] == 0.1
    assert "losses/cls" not in run.data.metrics
    assert run.data.metrics["epoch_device_seconds"] == 10.0
    assert {
        name: run.data.metrics[name]
        for name in ("map50_best", "compute_ratio", "total_device_seconds", "total_executed_flops")
    } == {
        "map50_best": 0.6,
        "compute_ratio": 0.7,
        "total_device_seconds": 30.0,
        "total_executed_flops": 9e12,
    }
    assert run.data.tags["checkpoint"] == "/runs/a/checkpoints/epoch_0002"
    assert run.data.tags["kind"] == "test"
    assert sorted(file.path for file in client.list_artifacts(tracker.run_id)) == ["config.yaml", "curve.png"]
    assert (tmp_path / "mlartifacts" / "exp").is_dir()


def test_a_resumed_run_is_the_same_run_without_repeated_steps(uri, tmp_path):
    first = MlflowTracker(tmp_path / "a", MlflowTarget(uri, "exp"))
    first.start(CONFIG, {"world_size": 2}, 0)
    for epoch in range(3):
        first.epoch(record(epoch))
    first.fail("worker killed")
    client = MlflowClient(uri)
    assert client.get_run(first.run_id).info.status == "FAILED"
    assert client.get_run(first.run_id).data.tags["failure"] == "worker killed"

    again = MlflowTracker(tmp_path / "a", MlflowTarget(uri, "exp"))
    again.start(CONFIG, {"world_size": 1}, 1)  # the checkpoint is older than what was logged
    assert again.run_id == first.run_id
    assert client.get_run(again.run_id).info.status == "RUNNING"
    for epoch in range(1, 5):
        again.epoch(record(epoch))
        again.epoch(record(epoch))
    again.finish(SUMMARY)
    assert steps(client, again.run_id, "loss") == [0, 1, 2, 3, 4]
    assert "failure" not in client.get_run(again.run_id).data.tags
    assert client.get_run(again.run_id).info.status == "FINISHED"
    assert len(client.search_runs([client.get_experiment_by_name("exp").experiment_id])) == 1


def test_where_the_store_has_lost_the_run_a_new_one_catches_up(uri, tmp_path):
    trackers = make_trackers(tmp_path / "a", MlflowTarget(uri, "exp"))
    for tracker in trackers:
        tracker.start(CONFIG, {}, 0)
        tracker.epoch(record(0))
        tracker.epoch(record(1))
    client = MlflowClient(uri)
    client.delete_run(trackers[1].run_id)
    resumed = make_trackers(tmp_path / "a", MlflowTarget(uri, "exp"))
    for tracker in resumed:
        tracker.start(CONFIG, {}, 2)
        tracker.epoch(record(2))
    assert resumed[1].run_id != trackers[1].run_id
    assert steps(client, resumed[1].run_id, "loss") == [0, 1, 2]


def test_a_study_has_its_own_experiment_a_parent_and_children(uri, tmp_path):
    study = MlflowStudy(tmp_path / "study", uri, "my-study", {"trials": 6, "space": "rho.py", "none": None})
    for number in range(2):
        target = MlflowTarget(uri, "my-study", f"trial-{number}", study.run_id, {"trial": str(number)})
        child = MlflowTracker(tmp_path / "study" / "trials" / str(number), target)
        child.start(CONFIG, {}, 0)
        child.finish(SUMMARY)
        study.progress(number + 1, {"hypervolume": 0.1 * number})
    (tmp_path / "pareto.json").write_text("{}")
    study.finish([tmp_path / "pareto.json"])

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("my-study").experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{study.run_id}'")
    assert sorted(run.info.run_name for run in children) == ["trial-0", "trial-1"]
    parent = client.get_run(study.run_id)
    assert parent.data.params == {"trials": "6", "space": "rho.py"}
    assert steps(client, study.run_id, "hypervolume") == [1, 2]
    assert parent.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(study.run_id)] == ["pareto.json"]
    assert MlflowStudy(tmp_path / "study", uri, "my-study", {"trials": 9}).run_id == study.run_id


def test_a_run_whose_process_died_can_be_ended_from_outside(uri, tmp_path):
    tracker = MlflowTracker(tmp_path / "a", MlflowTarget(uri, "exp"))
    tracker.start(CONFIG, {}, 0)
    end_abandoned_run(tmp_path / "a", uri, "process died")
    end_abandoned_run(tmp_path / "never", uri, "process died")
    run = MlflowClient(uri).get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "process died")


def test_the_global_state_of_mlflow_stays_untouched(uri, tmp_path, monkeypatch):
    before = mlflow.get_tracking_uri()
    MlflowTracker(tmp_path / "a", MlflowTarget(uri, "exp")).start(CONFIG, {}, 0)
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None


def test_an_unusable_store_warns_once_and_the_local_record_is_whole(tmp_path):
    (tmp_path / "file").write_text("")
    trackers = make_trackers(tmp_path / "a", MlflowTarget(f"sqlite:///{tmp_path}/file/mlflow.db", "exp"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for tracker in trackers:
            tracker.start(CONFIG, {}, 0)
            for epoch in range(3):
                tracker.epoch(record(epoch))
            tracker.finish(SUMMARY)
    ours = [str(entry.message) for entry in caught if "stays complete" in str(entry.message)]
    assert len(ours) == 1
    assert str(tmp_path / "a") in ours[0]
    assert len(read_epochs(tmp_path / "a")) == 3
    assert (tmp_path / "a" / "summary.json").exists()


def test_a_store_that_comes_back_gets_everything_in_order_and_once(uri, tmp_path, monkeypatch):
    tracker = MlflowTracker(tmp_path / "a", MlflowTarget(uri, "exp"))
    tracker.start(CONFIG, {}, 0)
    tracker.epoch(record(0))
    real = MlflowClient.log_batch

    def answer_is_lost(self, *args, **keywords):
        real(self, *args, **keywords)
        raise TimeoutError("no answer")

    monkeypatch.setattr(MlflowClient, "log_batch", answer_is_lost)
    with pytest.warns(UserWarning, match="no answer"):
        tracker.epoch(record(1))
    tracker.epoch(record(2))
    tracker.epoch(record(3))
    monkeypatch.setattr(MlflowClient, "log_batch", real)
    tracker.finish(SUMMARY)
    client = MlflowClient(uri)
    assert steps(client, tracker.run_id, "loss") == [0, 1, 2, 3]
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


def test_a_password_in_the_uri_is_neither_stored_nor_shown(tmp_path, monkeypatch):
    def refused(tracking_uri: str, registry_uri: str) -> None:
        raise ConnectionError(f"{tracking_uri} refused")

    monkeypatch.setattr("dbf_ray.tracking.mlflow.MlflowClient", refused)
    tracker = MlflowTracker(tmp_path / "a", MlflowTarget("http://me:secret@host:1/x", "exp"))
    with pytest.warns(UserWarning, match="refused") as caught:
        tracker.start(CONFIG, {}, 0)
    assert "secret" not in str(caught[0].message)
    assert "http://host:1/x" in str(caught[0].message)


def _first_use(arguments: tuple[str, str]) -> str | None:
    uri, directory = arguments
    tracker = MlflowTracker(Path(directory), MlflowTarget(uri, "exp"))
    tracker.start(CONFIG, {}, 0)
    tracker.epoch(record(0))
    return tracker.run_id


def test_first_use_by_several_processes_at_once(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(_first_use, [(uri, str(tmp_path / str(number))) for number in range(3)]))
    assert None not in runs
    client = MlflowClient(uri)
    assert [steps(client, run, "loss") for run in runs] == [[0], [0], [0]]


@pytest.fixture(scope="module")
def server(empty_database, tmp_path_factory):
    """A real ``mlflow server`` on a free port, over a store of its own."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "server.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(600):
                if process.poll() is not None:
                    pytest.fail((folder / "log").read_text())
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).read()
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", process
        finally:
            os.killpg(process.pid, 15)
            process.wait(20)


def test_a_real_server_gets_the_run_and_its_files_and_its_end_does_not_end_the_training(server, tmp_path):
    uri, process = server
    tracker = MlflowTracker(tmp_path / "a", MlflowTarget(uri, "exp"))
    tracker.start(CONFIG, {}, 0)
    tracker.epoch(record(0))
    client = MlflowClient(uri)
    assert steps(client, tracker.run_id, "loss") == [0]
    assert [file.path for file in client.list_artifacts(tracker.run_id)] == ["config.yaml"]
    assert (
        "seed: 0" in Path(client.download_artifacts(tracker.run_id, "config.yaml", str(tmp_path))).read_text()
    )

    os.killpg(process.pid, 15)
    process.wait(20)
    local = JsonlTracker(tmp_path / "a")
    local.start(CONFIG, {}, 1)
    with pytest.warns(UserWarning, match="cannot be used"):
        tracker.epoch(record(1))
    for epoch in range(1, 4):
        local.epoch(record(epoch))
        tracker.epoch(record(epoch))
    tracker.finish(SUMMARY)
    assert [known["epoch"] for known in read_epochs(tmp_path / "a")] == [1, 2, 3]
