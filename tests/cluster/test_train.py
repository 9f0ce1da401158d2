"""Runs on real Ray Train workers. The run function is a small fake here (the real one has its own file), so
these are quick.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ray import cloudpickle

from dbf_ray.cluster import train as cluster_train
from dbf_ray.cluster.ray_runtime import Resources, connected_ray, require
from dbf_ray.cluster.train import absolute_paths, record_of, train_on_ray
from dbf_ray.config import Config, to_dict, with_overrides
from dbf_ray.errors import DataError, ResourceError, TrainingError
from dbf_ray.training.manifest import seal

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def adding_run(config, *, directory, trackers=None, on_epoch=None, resume=None, **_) -> dict[str, Any]:
    """Counts epochs and adds up ranks over the process group, with the real one's records, trackers and
    checkpoints.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    records = record_of(resume) if resume else []
    first = len(records)
    weight = float(torch.load(resume / "checkpoint.pt")["weight"]) if resume else 0.0
    attempt = records[-1]["attempt"] + 1 if records else 0
    checkpoint = None
    for tracker in trackers:
        tracker.start(to_dict(config), {"world_size": world}, first)
    (directory / f"pid_{rank}").write_text(str(os.getpid()))
    for epoch in range(first, config.training.epochs):
        total = torch.tensor([float(rank + 1)])
        dist.all_reduce(total)
        weight += float(total)
        if config.freezing.parameters.get("bad_rank") == rank:
            raise DataError(f"image 7 cannot be decoded (rank {rank})")
        time.sleep(config.freezing.parameters.get("seconds", 0.0))
        record = {"epoch": epoch, "loss": weight, "map50": 0.1 * epoch, "attempt": attempt}
        records.append(record)
        if rank == 0:
            checkpoint = directory / "checkpoints" / f"epoch-{epoch + 1:05d}"
            checkpoint.mkdir(parents=True, exist_ok=True)
            torch.save({"weight": weight}, checkpoint / "checkpoint.pt")
            (checkpoint / "record.json").write_text(
                json.dumps({"config": to_dict(config), "epochs": records})
            )
            seal(checkpoint)
        for tracker in trackers:
            tracker.epoch(record)
        if on_epoch is not None and not on_epoch(record, checkpoint):
            break
    summary = {
        "name": directory.name,
        "epochs": config.training.epochs,
        "map50": records[-1]["map50"],
        "weight": weight,
        "world_size": world,
        "checkpoint": str(checkpoint),
    }
    for tracker in trackers:
        tracker.finish(summary)
    return summary


def tiny(**changes: Any) -> Config:
    return with_overrides(
        Config(),
        {
            "training.epochs": 3,
            "training.batch_size": 4,
            "cluster.workers": 2,
            "tracking.mlflow": False,
            **changes,
        },
    )


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "epochs.jsonl").read_text().splitlines()]


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_worker_comes_back_from_the_last_checkpoint_and_each_epoch_is_recorded_once(
    two_cpus, tmp_path
):
    directory = tmp_path / "killed"
    killed: list[int] = []

    def kill_once() -> None:
        while not killed:
            time.sleep(0.05)
            if (directory / "epochs.jsonl").exists() and len(lines(directory)) >= 2:
                killed.append(int((directory / "pid_1").read_text()))
                os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_once, daemon=True)
    killer.start()
    summary = train_on_ray(
        tiny(**{"training.epochs": 5, "freezing.policy": "step", "freezing.seconds": 0.4}),
        directory=directory,
        run=adding_run,
    )
    assert killed
    records = lines(directory)
    assert [record["epoch"] for record in records] == [0, 1, 2, 3, 4]
    assert [record["loss"] for record in records] == [3.0, 6.0, 9.0, 12.0, 15.0]  # as without the kill
    assert {record["attempt"] for record in records} == {0, 1}
    assert summary["weight"] == 15.0


@pytest.mark.ray
def test_bad_input_on_one_rank_is_one_clear_error_and_not_retried_for_ever(two_cpus, tmp_path):
    with pytest.raises(DataError, match="image 7 cannot be decoded"):
        train_on_ray(
            tiny(**{"freezing.policy": "step", "freezing.bad_rank": 1}),
            directory=tmp_path / "bad",
            run=adding_run,
        )
    assert not (tmp_path / "bad" / "summary.json").exists()


@pytest.mark.ray
def test_a_cluster_that_is_too_small_is_refused_at_once(two_cpus, tmp_path):
    with pytest.raises(
        ResourceError, match=r"3 workers with 2 CPUs each need 6 CPUs, but the Ray cluster has 2"
    ):
        train_on_ray(
            tiny(**{"cluster.workers": 3, "cluster.cpus_per_worker": 2, "training.batch_size": 6}),
            directory=tmp_path / "no",
            run=adding_run,
        )
    assert not (tmp_path / "no").exists()


def test_more_workers_than_the_machine_has_are_refused_before_ray_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(
        cluster_train, "available_resources", lambda: Resources(cpus=2, gpus=0, place="this machine")
    )
    monkeypatch.setattr(cluster_train, "connected_ray", lambda *_: pytest.fail("Ray must not start"))
    monkeypatch.setattr(cluster_train.ray, "is_initialized", lambda: False)
    with pytest.raises(
        ResourceError, match=r"4 workers with 1 CPUs each need 4 CPUs, but this machine has 2"
    ):
        train_on_ray(tiny(**{"cluster.workers": 4}), directory=tmp_path / "no", run=adding_run)
    assert not (tmp_path / "no").exists()


def test_workers_with_gpus_need_that_many_gpus():
    require(2, 1, True, Resources(cpus=2, gpus=2, place="here"))
    with pytest.raises(ResourceError, match=r"2 workers with a GPU each need 2 GPUs, but here has 1"):
        require(2, 1, True, Resources(cpus=2, gpus=1, place="here"))


def test_an_address_that_does_not_answer_is_a_clear_error(monkeypatch):
    def init(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr("dbf_ray.cluster.ray_runtime.ray.is_initialized", lambda: False)
    monkeypatch.setattr("dbf_ray.cluster.ray_runtime.ray.init", init)
    with (
        pytest.raises(ResourceError, match=r"cannot reach the Ray cluster at 10\.0\.0\.1:6379"),
        connected_ray("10.0.0.1:6379"),
    ):
        pytest.fail("never here")


def test_paths_are_made_absolute_and_names_of_weights_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    config = tiny(
        **{"data.root": "images", "detector.weights_backbone": "w.pth", "freezing.cache_dir": "scratch"}
    )
    made = absolute_paths(config)
    assert made.data.root == tmp_path / "images"
    assert made.detector.weights_backbone == str(tmp_path / "w.pth")
    assert made.runs_dir == tmp_path / "runs"
    assert made.freezing.cache_dir == tmp_path / "scratch"
    assert (
        absolute_paths(tiny(**{"detector.weights_backbone": "DEFAULT"})).detector.weights_backbone
        == "DEFAULT"
    )


def test_a_checkpoint_without_a_record_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"record\.json cannot be read"):
        record_of(tmp_path)
