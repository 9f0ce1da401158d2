"""Evaluations and predictions in MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from dbf_ray.api import evaluate_checkpoint
from dbf_ray.cli.evaluate import main as evaluate
from dbf_ray.cli.predict import main as predict
from dbf_ray.errors import DbfRayError
from dbf_ray.run import run
from dbf_ray.tracking.metrics import is_listed
from dbf_ray.tracking.spool import Spool
from tests.tiny import tiny_config


@pytest.fixture
def checkpoint(narrow: None, tmp_path: Path) -> Path:
    """Of a run of one epoch, which MLflow knows nothing of."""
    config = tiny_config(training__epochs=1, runs_dir=str(tmp_path / "runs"))
    return Path(run(config, quiet=True)["checkpoint"])


def runs_of(uri: str, kind: str) -> list:
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    return [one for one in found if one.data.tags["dbf_ray.kind"] == kind]


def test_evaluations_and_predictions_are_runs_of_their_own(checkpoint, uri, tmp_path, capsys):
    to_mlflow = ["--tracking.mlflow", "true", "--tracking.uri", uri, "--tracking.experiment", "mine"]
    assert evaluate(["--checkpoint", str(checkpoint), *to_mlflow]) == 0
    (found,) = runs_of(uri, "evaluation")
    (folder,) = (checkpoint.parent.parent / "evaluations").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert found.data.metrics["val/map50"] == summary["val/map50"]
    assert found.info.status == "FINISHED"
    assert found.info.run_name == f"evaluation · {checkpoint.parent.parent.name} · epoch-00001 · val"
    assert (found.data.params["split"], found.data.tags["dbf_ray.checkpoint"]) == ("val", str(checkpoint))
    (data,) = found.inputs.dataset_inputs
    assert (data.dataset.name, json.loads(data.dataset.profile)["images"]) == ("synthetic/val", 2)

    Image.new("RGB", (64, 64)).save(tmp_path / "one.png")
    out = tmp_path / "out"
    arguments = ["--checkpoint", str(checkpoint), "--images", str(tmp_path / "one.png"), "--out", str(out)]
    for _ in range(2):  # the second finds all of it done
        assert predict([*arguments, *to_mlflow]) == 0
    (found,) = runs_of(uri, "prediction")
    assert (found.info.status, found.data.metrics["predict/images"]) == ("FINISHED", 1)
    assert all(map(is_listed, found.data.metrics))
    assert "in 1 images" in found.data.tags["mlflow.note.content"]
    assert Spool(out).waiting(Spool(out).read()) == 0
    capsys.readouterr()


def test_a_failed_evaluation_is_a_failed_run_and_a_refused_one_is_none(
    checkpoint, uri, tmp_path, monkeypatch
):
    def fails(*_: object) -> None:
        raise RuntimeError("the disk is full")

    tracking = {"mlflow": True, "uri": uri, "experiment": "mine"}
    with pytest.raises(DbfRayError):
        evaluate_checkpoint(checkpoint, tmp_path / "nowhere", tracking=tracking)
    assert not (checkpoint.parent.parent / "evaluations").exists()
    monkeypatch.setattr("dbf_ray.evaluate.evaluate", fails)
    with pytest.raises(RuntimeError):
        evaluate_checkpoint(checkpoint, tracking=tracking)
    (found,) = runs_of(uri, "evaluation")
    assert (found.info.status, found.data.tags["failure"]) == ("FAILED", "RuntimeError: the disk is full")


def test_without_mlflow_an_evaluation_leaves_nothing(checkpoint):
    before = sorted(checkpoint.parent.parent.rglob("*"))
    evaluate_checkpoint(checkpoint)
    assert sorted(checkpoint.parent.parent.rglob("*")) == before
