"""What has to be true after a fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mlflow import MlflowClient

from dbf_ray.config import load_config
from dbf_ray.run import run
from dbf_ray.tracking import JsonlTracker, deliver, read_epochs, read_summary
from dbf_ray.training.checkpoint import load_checkpoint
from tests.faults.place import Place
from tests.tiny import on_ranks

WHOLE = "whole"  # the undisturbed run's name


def undisturbed(place: Place, keys: dict[str, Any]) -> Path:
    """The folder of the same training that nothing happens to, with as many workers, without Ray."""
    folder, workers = place.folder / "undisturbed" / WHOLE, int(keys.get("cluster.workers", 1))
    if not (folder / "summary.json").exists():
        keys = keys | {"name": WHOLE, "runs_dir": str(folder.parent), "tracking.mlflow": False}
        keys = {key: value for key, value in keys.items() if key != "tracking.uri"}
        if workers > 1:
            on_ranks(_one_rank, keys, str(folder), workers, ranks=workers)
        else:
            run(load_config(None, keys), quiet=True)
    return folder


def _one_rank(rank: int, keys: dict[str, Any], folder: str, workers: int) -> None:
    meeting = Path(folder).with_name("meeting")
    meeting.parent.mkdir(parents=True, exist_ok=True)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    trackers = [JsonlTracker(Path(folder))] if rank == 0 else []
    run(load_config(None, keys), directory=Path(folder), trackers=trackers, quiet=True)
    dist.destroy_process_group()


def every_epoch_once(folder: Path, epochs: int) -> None:
    """The record's file has each epoch in one line."""
    lines = (folder / "epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(epochs))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    summary = read_summary(folder) or {}
    found: dict[str, torch.Tensor] = load_checkpoint(Path(summary["checkpoint"]))[0]["model"]
    return found


def same_weights(folder: Path, whole: Path) -> None:
    """Bit by bit."""
    here, there = weights_of(folder), weights_of(whole)
    assert here.keys() == there.keys()
    assert [name for name in here if not torch.equal(here[name], there[name])] == []
    losses = [[record["loss"] for record in read_epochs(one)] for one in (folder, whole)]
    assert losses[0] == losses[1]


def in_mlflow(place: Place, folder: Path, status: str = "FINISHED") -> Any:
    """The run in MLflow, once, with this status, and with each epoch's metrics once."""
    client, card = MlflowClient(place.uri), json.loads((folder / "mlflow.json").read_text())
    run = client.get_run(card["run_id"])
    assert run.info.status == status
    if status == "FINISHED":
        assert "failure" not in run.data.tags
    wanted = list(range(len(read_epochs(folder))))
    for metric in ("train/loss", "val/map50", "cost/epochs"):
        steps = [entry.step for entry in client.get_metric_history(run.info.run_id, metric)]
        assert steps == wanted, f"{metric}: {steps}"
    twins = client.search_runs([run.info.experiment_id], "attributes.status != 'x'")
    names = [one.info.run_name for one in twins]
    assert len(names) == len(set(names)), names
    return run


def noticed(place: Place, folder: Path, *others: str) -> None:
    """A process that ended without a word is KILLED in MLflow once somebody looks; or ``others``, as FAILED
    where a worker outlived another for long enough to say so.
    """
    deliver(folder.parent)
    status = json.loads((folder / "mlflow.json").read_text())["status"]
    assert status in ("KILLED", *others), status
    in_mlflow(place, folder, status)


def whole_and_same(place: Place, keys: dict[str, Any]) -> None:
    """A finished run that was disturbed: all of the above."""
    folder = place.run_folder(keys["name"])
    every_epoch_once(folder, keys["training.epochs"])
    same_weights(folder, undisturbed(place, keys))
    in_mlflow(place, folder)
    assert not (folder / "failure.json").exists()


def again(folder: Path, known: int) -> str:
    """What was lost: epochs that were on disk when the harm was done, and were trained once more."""
    last = max(record["attempt"] for record in read_epochs(folder))
    first = next(record["epoch"] for record in read_epochs(folder) if record["attempt"] == last)
    repeated = known - first
    return "nothing" if repeated <= 0 else f"nothing ({repeated} epoch{'s' * (repeated > 1)} trained again)"
