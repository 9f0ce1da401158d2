"""Runs as trackers are told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from dbf_ray.config import Config, to_dict, with_overrides
from dbf_ray.tracking import MlflowTarget, Tracker, make_trackers
from dbf_ray.tracking.spool import Spool

CONFIG = to_dict(
    with_overrides(Config(), {"freezing.policy": "step", "freezing.rho": 4, "training.epochs": 3})
)
SUMMARY = {
    "map50": 0.2,
    "compute_ratio": 0.7,
    "device_seconds": 30.0,
    "epochs": 3,
    "checkpoint": "/c/epoch-3",
}
DATA = {"name": "ships/train", "digest": "d1", "source": "/ships", "split": "train", "counts": {"images": 8}}
FACTS = {"num_stages": 4, "backbone_share": 0.58, "versions": {"torch": "2"}, "datasets": [DATA]}


def record(epoch: int, **more: Any) -> dict[str, Any]:
    """An epoch's."""
    return {
        "epoch": epoch,
        "time": 1.7e9 + epoch,
        "loss": 1.0 - 0.1 * epoch,
        "losses": {"box": 0.1, "cls": float("nan")},
        "lr": 1e-3,
        "map50": 0.1 * epoch,
        "device_seconds": 10.0,
        "wall_seconds": 11.0,
        "tracking_seconds": 0.11,
        "frozen_stages": 4,
        "steps_per_prefix": {"0": 1, "4": 3},
        "so_far": {"device_seconds": 10.0 * (epoch + 1), "compute_ratio": 0.2 * (epoch + 1)},
        "system": {"node_0": {"cpu_utilization_percentage": 50.0}},
        **more,
    }


def begun(directory: Path, uri: str, epochs: int = 0, **target: Any) -> list[Tracker]:
    """The trackers of a run that has done so many epochs."""
    trackers = make_trackers(directory, MlflowTarget(uri, target.pop("experiment", "exp"), **target))
    for tracker in trackers:
        tracker.start(CONFIG, FACTS, 0)
    tell(trackers, range(epochs))
    return trackers


def tell(trackers: list[Tracker], epochs: range) -> None:
    """Epochs are done."""
    for epoch in epochs:
        for tracker in trackers:
            tracker.epoch(record(epoch))


def end(trackers: list[Tracker]) -> None:
    """The run is done."""
    for tracker in trackers:
        tracker.finish(SUMMARY)


def lived(directory: Path, uri: str, epochs: int) -> None:
    """A run from its begin to its end."""
    end(begun(directory, uri, epochs))


def abandon(trackers: list[Tracker]) -> None:
    """As if the process were gone, as far as that can be played within one."""
    tracker: Any = trackers[1]
    tracker._thread.stop()
    tracker._thread._thread.join(30)
    tracker._alive.release()


def run_id(directory: Path) -> str:
    """Of the folder's run in MLflow."""
    card = Spool(directory).read()
    assert card is not None
    return str(card["run_id"])


def steps(client: MlflowClient, run: str, key: str = "train/loss") -> list[int]:
    """At which a metric was logged."""
    return [metric.step for metric in client.get_metric_history(run, key)]
