"""Runs in MLflow, in a real sqlite store."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from dbf_ray.tracking import MlflowTarget, make_trackers
from dbf_ray.tracking.metrics import is_listed
from dbf_ray.tracking.mlflow import MlflowResult, MlflowStudy
from dbf_ray.tracking.spool import Spool
from tests.tracking.told import CONFIG, FACTS, SUMMARY, abandon, begun, end, lived, run_id, steps, tell


def test_one_run_with_parameters_epochs_costs_data_and_files(uri, tmp_path):
    (tmp_path / "a" / "pictures" / "detections").mkdir(parents=True)
    (tmp_path / "a" / "pictures" / "detections" / "epoch-00001.png").write_bytes(b"png")
    trackers = begun(tmp_path / "a", uri, 3, run_name="step ρ=4", tags={"dbf_ray.seed": "7"})
    end(trackers)

    client = MlflowClient(uri)
    run = client.get_run(run_id(tmp_path / "a"))
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == "exp"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert (run.info.run_name, run.info.status) == ("step ρ=4", "FINISHED")
    params = {
        name: run.data.params[name]
        for name in ("policy", "rho", "seed", "epochs", "image_size", "num_stages")
    }
    assert params == {
        "policy": "step",
        "rho": "4",
        "seed": "0",
        "epochs": "3",
        "image_size": "384",
        "num_stages": "4",
    }
    assert len(run.data.params) < 30
    metrics = run.data.metrics
    for name in metrics:
        assert is_listed(name), name
        assert steps(client, run.info.run_id, name) == [0, 1, 2]
    assert "train/loss_cls" not in metrics
    wanted = {
        "val/map50": 0.2,
        "val/map50_best": 0.2,
        "train/loss_box": 0.1,
        "freezing/num_frozen": 4,
        "freezing/mean_frozen": 3,
        "cost/device_seconds": 30,
        "cost/epochs": 3,
        "speed/tracking_share": 0.01,
        "system/node_0/cpu_utilization_percentage": 50,
    }
    assert {name: pytest.approx(value) for name, value in wanted.items()} == {
        name: metrics[name] for name in wanted
    }
    assert metrics["cost/compute_ratio"] == pytest.approx(0.6)
    tags = run.data.tags
    assert (tags["dbf_ray.kind"], tags["dbf_ray.seed"]) == ("training", "7")
    assert (tags["dbf_ray.versions"], tags["dbf_ray.checkpoint"]) == ("torch 2", SUMMARY["checkpoint"])
    assert "map50 0.200, FLOPs of full fine-tuning 70 %" in tags["mlflow.note.content"]
    assert "dbf train --config " in tags["mlflow.note.content"]
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("ships/train", "d1")
    assert json.loads(data.dataset.profile) == {"images": 8}
    assert data.tags[0].value == "train"
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "epochs.jsonl", "summary.json", "pictures"}
    (sheet,) = client.list_artifacts(run.info.run_id, "pictures/detections")
    assert sheet.path == "pictures/detections/epoch-00001.png"
    assert (tmp_path / "mlartifacts" / "exp").is_dir()


def test_paths_that_are_no_text_are_escaped(uri, tmp_path):
    """Folders and files may be called by any bytes; a store takes text alone."""
    name = os.fsdecode(b"\xb0\xa1")
    trackers = make_trackers(tmp_path / name, MlflowTarget(uri, "exp", tags={"place": name}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for tracker in trackers:
            tracker.start({**CONFIG, "data": {**CONFIG["data"], "name": f"mine{name}:Reader"}}, {}, 0)
        for tracker in trackers:
            tracker.fail(f"{name}.png: images must be decodable")
    run = MlflowClient(uri).get_run(run_id(tmp_path / name))
    assert run.info.run_name == run.data.tags["place"] == "\\udcb0\\udca1"
    assert run.data.tags["failure"].startswith("\\udcb0\\udca1.png")
    assert run.data.params["data"] == "mine\\udcb0\\udca1:Reader"


def test_a_resumed_run_is_the_same_run_without_repeated_steps(uri, tmp_path):
    for tracker in begun(tmp_path / "a", uri, 3):
        tracker.fail("worker killed")
    client = MlflowClient(uri)
    first = run_id(tmp_path / "a")
    assert client.get_run(first).info.status == "FAILED"
    assert client.get_run(first).data.tags["failure"] == "worker killed"

    again = make_trackers(tmp_path / "a", MlflowTarget(uri, "exp"))
    for tracker in again:
        tracker.start({**CONFIG, "seed": 1}, {"world_size": 1}, 1)  # the checkpoint is older
    tell(again, range(1, 5))
    tell(again, range(1, 5))
    again[1]._thread.wait()
    assert client.get_run(first).info.status == "RUNNING"
    end(again)
    run = client.get_run(first)
    assert run_id(tmp_path / "a") == first
    assert steps(client, first) == [0, 1, 2, 3, 4]
    assert "failure" not in run.data.tags
    assert (run.info.status, run.data.params["seed"]) == ("FINISHED", "0")
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_where_the_store_has_lost_the_run_a_new_one_catches_up(uri, tmp_path):
    for tracker in begun(tmp_path / "a", uri, 2):
        tracker.fail("stopped", killed=True)
    client = MlflowClient(uri)
    first = run_id(tmp_path / "a")
    assert client.get_run(first).info.status == "KILLED"
    client.delete_run(first)
    again = make_trackers(tmp_path / "a", MlflowTarget(uri, "exp"))
    for tracker in again:
        tracker.start(CONFIG, {}, 2)
    tell(again, range(2, 3))
    end(again)
    assert run_id(tmp_path / "a") != first
    assert steps(client, run_id(tmp_path / "a")) == [0, 1, 2]


def row(number: int, **more: object) -> dict:
    """A trial's row of pareto.json."""
    return {
        "number": number,
        "state": "COMPLETE",
        "policy": "step",
        "parameters": {"rho": number},
        "overrides": {"freezing.rho": number},
        "map50": 0.4 + 0.01 * number,
        "compute_ratio": 0.5 + 0.1 * number,
        "seeds": [],
        **more,
    }


def result(trials: int, **more: object) -> dict:
    """The content of pareto.json."""
    return {
        "study": "s",
        "objectives": {"map50": "maximize", "compute_ratio": "minimize"},
        "hypervolume": 0.1 * trials,
        "hypervolume_gain": 0.05,
        "front": list(range(trials)),
        "knee": 1,
        "answer": {"number": 1, "text": "step(rho=1) it is.", "command": "dbf train --config c.yaml"},
        "epochs_trained": 3 * trials,
        "epochs_shared": 0,
        "trials": [row(number, accuracy_interval=[0.39, 0.45]) for number in range(trials)],
        **more,
    }


def test_a_study_has_its_own_experiment_a_parent_and_children(uri, tmp_path):
    folder = tmp_path / "s"
    study = MlflowStudy(folder, MlflowTarget(uri, "s", "search · s", "search"))
    study.start({"trials": 6, "space": "rho.py", "none": None}, [])
    for number in range(2):
        target = {"experiment": "s", "run_name": f"t{number}", "kind": "trial", "parent": str(folder)}
        end(begun(folder / "trials" / str(number), uri, 1, **target, full_share=0.5))
    history = [{"trials": n, "epochs_trained": 3 * n, "hypervolume": 0.1 * n} for n in (1, 2)]
    (folder / "pareto.json").write_text(json.dumps(result(2, history=history)))
    (folder / "pareto.html").write_text("<html>")
    study.progress()
    study.finish()

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("s").experiment_id
    parent = client.get_run(run_id(folder))
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(run.info.run_name for run in children) == ["t0", "t1"]
    assert [run.data.metrics["cost/compute_ratio"] for run in children] == [pytest.approx(0.1)] * 2
    assert parent.data.params == {"trials": "6", "space": "rho.py"}
    assert steps(client, parent.info.run_id, "search/hypervolume") == [1, 2]
    assert steps(client, parent.info.run_id, "search/front") == [2]
    assert all(map(is_listed, parent.data.metrics))
    assert parent.data.metrics["val/map50"] == pytest.approx(0.41)
    assert parent.data.metrics["cost/compute_ratio"] == 0.6
    tags = parent.data.tags
    assert (tags["dbf_ray.front"], tags["dbf_ray.knee"], tags["dbf_ray.recommended"]) == ("0, 1", "1", "1")
    assert tags["dbf_ray.intervals"].startswith("0: (0.390 to 0.450); 1: ")
    note = tags["mlflow.note.content"]
    assert note.startswith("step(rho=1) it is.\n\n```\ndbf train --config c.yaml\n```")
    assert "| 1 | step ρ=1 | 0.410 (0.390 to 0.450) | 0.6 |" in note
    assert parent.info.status == "FINISHED"
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"pareto.json", "pareto.html"}

    again = MlflowStudy(folder, MlflowTarget(uri, "s", "search · s", "search"))
    again.start({"trials": 9}, [])
    seed = {"state": "COMPLETE", "seed": 1}
    more = result(3)
    more["trials"][0]["seeds"] = [seed]
    (folder / "pareto.json").write_text(json.dumps(more))
    again.finish("interrupted", killed=True)
    assert run_id(folder) == parent.info.run_id
    assert steps(client, parent.info.run_id, "search/front") == [2, 4]
    assert client.get_run(parent.info.run_id).info.status == "KILLED"


def test_an_evaluation_is_a_run_of_its_own(uri, tmp_path):
    run = MlflowResult(tmp_path / "e", MlflowTarget(uri, "exp", "evaluation of c", "evaluation"))
    run.start({"split": "val", "none": None})
    run.finish({"val/map50": 0.5, "val/ap50/ship": 0.5}, "What it is.", FACTS["datasets"])
    found = MlflowClient(uri).get_run(run_id(tmp_path / "e"))
    assert found.data.metrics == {"val/map50": 0.5, "val/ap50/ship": 0.5}
    assert [one.dataset.name for one in found.inputs.dataset_inputs] == ["ships/train"]
    assert (found.data.params, found.data.tags["dbf_ray.kind"]) == ({"split": "val"}, "evaluation")
    assert (found.info.status, found.data.tags["mlflow.note.content"]) == ("FINISHED", "What it is.")
    assert Spool(tmp_path / "e").waiting(Spool(tmp_path / "e").read()) == 0


def test_a_run_whose_process_died_can_be_ended_from_outside(uri, tmp_path):
    study = MlflowStudy(tmp_path / "s", MlflowTarget(uri, "exp", "search · s", "search"))
    study.start({}, [])
    trackers = begun(tmp_path / "a", uri, 1)
    trackers[1]._thread.wait()
    abandon(trackers)
    study.lost(tmp_path / "a", "process died", killed=True)
    study.lost(tmp_path / "never", "process died", killed=True)
    study.finish()
    run = MlflowClient(uri).get_run(run_id(tmp_path / "a"))
    assert (run.info.status, run.data.tags["failure"]) == ("KILLED", "process died")


def test_the_global_state_of_mlflow_stays_untouched(uri, tmp_path):
    before = mlflow.get_tracking_uri()
    end(begun(tmp_path / "a", uri))
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None


def test_a_password_in_the_uri_is_neither_stored_nor_shown(tmp_path, monkeypatch):
    def refused(tracking_uri: str, registry_uri: str) -> None:
        raise ConnectionError(f"{tracking_uri} refused")

    monkeypatch.setattr("dbf_ray.tracking.store.MlflowClient", refused)
    with pytest.warns(UserWarning, match="refused") as caught:
        lived(tmp_path / "a", "http://me:secret@host:1/x", 0)
    assert all("secret" not in str(one.message) for one in caught)
    assert "http://host:1/x" in str(caught[-1].message)
    for file in (tmp_path / "a").rglob("*"):
        assert file.is_dir() or b"secret" not in file.read_bytes()


def test_class_names_with_odd_signs_are_logged(uri, tmp_path):
    odd = {f"ap50/{name}": 0.1 for name in ("plane(large)", "a+b", "a&b", "x//y", "..", "l" * 300)}
    trackers = begun(tmp_path / "a", uri)
    for epoch in range(2):
        for tracker in trackers:
            tracker.epoch({"epoch": epoch, "loss": 1.0, **odd})
    end(trackers)
    client = MlflowClient(uri)
    names = ["plane_large_", "a_b", "a_b_2", "x/_/y", "_", "l" * 231]
    for name in names:
        assert steps(client, run_id(tmp_path / "a"), f"val/ap50/{name}") == [0, 1]


def test_what_the_store_refuses_is_left_out_and_the_rest_is_logged(uri, tmp_path, monkeypatch):
    valid = "dbf_ray.tracking.metrics.valid_names"
    monkeypatch.setattr(valid, lambda names: {name: name.replace("lr", "l+r") for name in names})
    with pytest.warns(UserWarning, match=r"refused train/l\+r .*, which it will lack"):
        lived(tmp_path / "a", uri, 2)
    client = MlflowClient(uri)
    assert steps(client, run_id(tmp_path / "a")) == [0, 1]
    assert client.get_run(run_id(tmp_path / "a")).info.status == "FINISHED"


def test_without_mlflow_the_record_is_whole(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dbf_ray.tracking.mlflow", None)
    with pytest.warns(UserWarning, match="MLflow cannot be imported"):
        (only,) = make_trackers(tmp_path / "a", MlflowTarget("sqlite:///x.db", "exp"))
    only.start(CONFIG, {}, 0)
    assert (Path(tmp_path) / "a" / "config.yaml").exists()
