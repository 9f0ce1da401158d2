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
import yaml
from ray import cloudpickle

from dbf_ray.cluster import train_on_ray
from dbf_ray.config import Config
from dbf_ray.errors import ConfigError, TrainingError
from dbf_ray.run import run
from dbf_ray.tracking import JsonlTracker, read_epochs
from tests import tiny
from tests.detectors import narrow
from tests.training import damage
from tests.training.damage import flipped

for module in (sys.modules[__name__], tiny, narrow, damage):  # which a worker cannot import
    cloudpickle.register_pickle_by_value(module)


def of_workers(workers: int, **changes: Any) -> Config:
    return tiny.tiny_config(freezing__policy="step", freezing__rho=2, cluster__workers=workers, **changes)


def run_and_die_once(config: Config, *, directory: Path, on_epoch: Any, **more: Any) -> dict[str, Any]:
    """The real run, in which rank 1 is killed once, after epoch 1 and before it could report; where a file
    ``tear`` is there, Ray's copies of checkpoints are torn then.
    """
    tiny.add_narrow()
    died = directory / "died"

    def dying(record: dict[str, Any], checkpoint: Path | None) -> bool:
        if record["epoch"] == 1 and torch.distributed.get_rank() == 1 and not died.exists():
            died.touch()
            for copy in directory.glob("ray/checkpoint_*") if (directory / "tear").exists() else ():
                flipped("checkpoint.pt")(copy)
            os.kill(os.getpid(), signal.SIGKILL)
        return on_epoch(record, checkpoint)

    return run(config, directory=directory, on_epoch=dying, **more)


def same_as_alone(folder: Path, summary: dict[str, Any]) -> None:
    """The record of ``folder/pair`` is that of one process that trains the same."""
    run(of_workers(1), directory=folder / "alone", trackers=[JsonlTracker(folder / "alone")], quiet=True)
    pair, alone = read_epochs(folder / "pair"), read_epochs(folder / "alone")
    assert [record["epoch"] for record in pair] == [0, 1, 2, 3]
    assert len((folder / "pair" / "epochs.jsonl").read_text().splitlines()) == 4
    assert [record["frozen_stages"] for record in pair] == [0, 4, 0, 4]
    losses = [[record["loss"] for record in records] for records in (pair, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert summary["world_size"] == 2
    of_alone = json.loads((folder / "alone" / "summary.json").read_text())
    assert summary["compute_ratio"] == of_alone["compute_ratio"]
    assert Path(summary["checkpoint"]).is_dir()
    names = [{file.name for file in (folder / name).iterdir()} for name in ("pair", "alone")]
    assert names[0] - {"died", "tear"} == names[1]


@pytest.mark.ray
@pytest.mark.slow  # that two workers train together, and a worker is started anew, is in test_faults.py
@pytest.mark.usefixtures("narrow", "two_cpus")
def test_two_workers_train_together_and_a_run_that_stopped_goes_on_when_it_is_started_again(tmp_path, capsys):
    config, directory = of_workers(2, cluster__max_failures=0), tmp_path / "pair"
    with pytest.raises(
        TrainingError, match=r"more than 0 failures of its workers.* the same command continues"
    ):
        train_on_ray(config, directory=directory, run=run_and_die_once)
    assert [record["epoch"] for record in read_epochs(directory)] == [0, 1]
    summary = train_on_ray(config, directory=directory, run=run_and_die_once)
    assert "resuming after 2 of 4 epochs" in capsys.readouterr().err
    assert [record["attempt"] for record in read_epochs(directory)] == [1, 1, 2, 2]
    same_as_alone(tmp_path, summary)
    assert json.loads((directory / "summary.json").read_text()) == summary
    assert yaml.safe_load((directory / "config.yaml").read_text())["cluster"]["workers"] == 2
    with pytest.raises(ConfigError, match="is finished"):
        train_on_ray(config, directory=directory, run=run_and_die_once)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("narrow", "two_cpus")
def test_where_rays_last_copy_of_a_checkpoint_is_torn_the_runs_own_are_looked_at(tmp_path, capsys):
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "tear").touch()
    summary = train_on_ray(of_workers(2), directory=tmp_path / "pair", run=run_and_die_once)
    assert (tmp_path / "pair" / "died").exists()
    said = capsys.readouterr().err
    assert "resuming after 2 of 4 epochs" in said
    assert "is torn (checkpoint.pt is not what was written" in said
    same_as_alone(tmp_path, summary)
