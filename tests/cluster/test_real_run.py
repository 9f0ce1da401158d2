"""The real training on two real Ray workers, one of which dies."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle

from dbf_ray.cluster import train_on_ray
from dbf_ray.config import Config
from dbf_ray.run import run
from dbf_ray.tracking import JsonlTracker, read_epochs
from tests import tiny
from tests.detectors import narrow

for module in (sys.modules[__name__], tiny, narrow):  # which a worker cannot import
    cloudpickle.register_pickle_by_value(module)


def of_workers(workers: int) -> Config:
    return tiny.tiny_config(freezing__policy="step", freezing__rho=2, cluster__workers=workers)


def run_and_die_once(config: Config, *, directory: Path, on_epoch: Any, **more: Any) -> dict[str, Any]:
    """The real run, in which rank 1 is killed once, after epoch 1 and before it could report."""
    tiny.add_narrow()
    died = directory / "died"

    def dying(record: dict[str, Any], checkpoint: Path | None) -> bool:
        if record["epoch"] == 1 and torch.distributed.get_rank() == 1 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return on_epoch(record, checkpoint)

    return run(config, directory=directory, on_epoch=dying, **more)


@pytest.mark.ray
@pytest.mark.usefixtures("narrow", "two_cpus")
def test_a_worker_killed_in_a_real_training_changes_nothing_in_its_record(tmp_path):
    summary = train_on_ray(of_workers(2), directory=tmp_path / "pair", run=run_and_die_once)
    assert (tmp_path / "pair" / "died").exists()
    run(of_workers(1), directory=tmp_path / "alone", trackers=[JsonlTracker(tmp_path / "alone")], quiet=True)

    pair, alone = read_epochs(tmp_path / "pair"), read_epochs(tmp_path / "alone")
    assert [record["epoch"] for record in pair] == [0, 1, 2, 3]
    assert len((tmp_path / "pair" / "epochs.jsonl").read_text().splitlines()) == 4
    assert [record["frozen_stages"] for record in pair] == [0, 4, 0, 4]
    assert [record["loss"] for record in pair] == pytest.approx(
        [record["loss"] for record in alone], rel=1e-3
    )
    assert summary["world_size"] == 2
    assert (
        summary["compute_ratio"]
        == json.loads((tmp_path / "alone" / "summary.json").read_text())["compute_ratio"]
    )
    assert Path(summary["checkpoint"]).is_dir()
    assert sorted(file.name for file in (tmp_path / "pair").iterdir() if file.name != "died") == sorted(
        file.name for file in (tmp_path / "alone").iterdir()
    )
