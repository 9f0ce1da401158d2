"""The run's own folder: complete, idempotent, and readable after a crash at any byte."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.config import Config, load_config, to_dict
from dbf_ray.files import write_text
from dbf_ray.tracking import (
    JsonlTracker,
    Tracker,
    make_trackers,
    read_epochs,
    read_summary,
    resolve_uri,
    write_epochs,
)
from dbf_ray.values import finite


def epochs_of(directory: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (directory / "epochs.jsonl").read_text().splitlines()]


def begun(directory: Path, resume_epoch: int = 0) -> JsonlTracker:
    tracker = JsonlTracker(directory)
    tracker.start({"seed": 0}, {}, resume_epoch)
    return tracker


def test_a_run_leaves_config_epochs_and_summary(tmp_path):
    config = Config()
    tracker = JsonlTracker(tmp_path / "run")
    assert isinstance(tracker, Tracker)
    tracker.start(to_dict(config), {}, 0)
    for epoch in range(3):
        tracker.epoch({"epoch": epoch, "loss": 1.0 / (epoch + 1), "map50": None})
    assert read_summary(tmp_path / "run") is None
    tracker.finish({"map50": 0.5, "parameters": {"rho": 2}})
    assert load_config(tmp_path / "run" / "config.yaml") == config
    assert epochs_of(tmp_path / "run") == [0, 1, 2]
    assert read_summary(tmp_path / "run") == {"map50": 0.5, "parameters": {"rho": 2}}
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [
        "config.yaml",
        "epochs.jsonl",
        "summary.json",
    ]


def test_a_resumed_run_has_each_epoch_once(tmp_path):
    tracker = begun(tmp_path)
    for epoch in range(4):
        tracker.epoch({"epoch": epoch, "attempt": 0})
    tracker = begun(tmp_path, resume_epoch=2)
    assert epochs_of(tmp_path) == [0, 1]
    for epoch in range(2, 5):
        tracker.epoch({"epoch": epoch, "attempt": 1})
    assert [(record["epoch"], record["attempt"]) for record in read_epochs(tmp_path)] == [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 1),
        (4, 1),
    ]


def test_telling_an_epoch_again_replaces_it(tmp_path):
    tracker = begun(tmp_path)
    for loss in (2.0, 1.0):
        for epoch in range(2):
            tracker.epoch({"epoch": epoch, "loss": loss})
    assert epochs_of(tmp_path) == [0, 1]
    assert [record["loss"] for record in read_epochs(tmp_path)] == [1.0, 1.0]


@given(cut=st.integers(min_value=1, max_value=20), resume_epoch=st.integers(min_value=0, max_value=3))
def test_a_torn_last_line_costs_that_line_only(tmp_path_factory, cut, resume_epoch):
    directory = tmp_path_factory.mktemp("torn")
    tracker = begun(directory)
    for epoch in range(3):
        tracker.epoch({"epoch": epoch, "text": "é" * 10})
    file = directory / "epochs.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    whole = 3 if cut == 1 else 2  # the line break alone can be lost
    assert len(read_epochs(directory)) == whole
    tracker = begun(directory, resume_epoch)
    assert epochs_of(directory) == list(range(min(resume_epoch, whole)))
    tracker.epoch({"epoch": resume_epoch})
    assert epochs_of(directory)[-1] == resume_epoch


def test_a_failed_run_says_why_until_it_goes_on(tmp_path):
    tracker = begun(tmp_path)
    tracker.fail("loss is not finite in step 7")
    assert json.loads((tmp_path / "failure.json").read_text()) == {"reason": "loss is not finite in step 7"}
    begun(tmp_path, 0)
    assert not (tmp_path / "failure.json").exists()


def test_a_new_start_takes_the_old_end_away(tmp_path):
    begun(tmp_path).finish({"map50": 0.1})
    begun(tmp_path)
    assert read_summary(tmp_path) is None


def test_records_hold_only_what_json_can(tmp_path):
    tracker = begun(tmp_path)
    tracker.epoch(
        {
            "epoch": 0,
            "loss": math.nan,
            "losses": {"box": np.float32(0.5)},
            "lr": torch.tensor(2.0),
            "list": (1, math.inf),
            "p": tmp_path,
        }
    )
    assert read_epochs(tmp_path) == [
        {"epoch": 0, "loss": None, "losses": {"box": 0.5}, "lr": 2.0, "list": [1, None], "p": str(tmp_path)}
    ]
    assert finite({"ok": True, "n": None}) == {"ok": True, "n": None}


def test_an_interrupted_write_leaves_the_old_content(tmp_path, monkeypatch):
    file = tmp_path / "summary.json"
    write_text(file, "old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("dbf_ray.files.os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_written_epochs_are_in_order(tmp_path):
    write_epochs(tmp_path, [{"epoch": 2}, {"epoch": 0}])
    assert epochs_of(tmp_path) == [0, 2]


def test_config_yaml_is_plain_yaml(tmp_path):
    JsonlTracker(tmp_path).start({"root": tmp_path, "list": (1, 2)}, {}, 0)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"root": str(tmp_path), "list": [1, 2]}


def test_the_tracking_uri_is_the_configured_one_then_the_environments_then_sqlite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {"MLFLOW_TRACKING_URI": "http://server:5000"}
    assert resolve_uri("sqlite:////data/m.db", environment) == "sqlite:////data/m.db"
    assert resolve_uri(None, environment) == "http://server:5000"
    assert resolve_uri(None, {}) == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_uri("sqlite:///sub/m.db", {}) == f"sqlite:///{tmp_path}/sub/m.db"


def test_without_a_target_there_is_the_local_record_alone(tmp_path):
    assert [type(tracker) for tracker in make_trackers(tmp_path)] == [JsonlTracker]


def test_what_a_killed_process_was_writing_is_gone_after_the_next_start(tmp_path):
    for name in ("failure.json", "epochs.jsonl", "config.yaml", "summary.json"):
        (tmp_path / f".{name}.4lmt7xwy").write_text("half")
    (tmp_path / ".lock").touch()
    begun(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "config.yaml", "epochs.jsonl"]
