"""What a search does beside and after its trials, on a real Ray with a training that is only arithmetic:
shorter full trainings, the front again with further seeds, and val.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle

from dbf_ray.config import Config, to_dict, with_overrides
from dbf_ray.errors import TrainingError
from dbf_ray.search import search
from dbf_ray.search.controls import control_overrides, controls_of
from dbf_ray.training.checkpoint import save_checkpoint
from tests.search.begins import four_stages
from tests.search.test_tuner import RHO

cloudpickle.register_pickle_by_value(sys.modules[__name__])
EPOCHS = 6


def arithmetic(config, *, directory, trackers=None, on_epoch=None, **_) -> dict[str, Any]:
    """Accuracy grows with the epochs in which the backbone is trained, and a little with the seed; the
    training of seed 1 fails while there is a file ``broken``.
    """
    epochs, rho = config.training.epochs, config.freezing.parameters.get("rho")
    if config.seed == 1 and (directory.parents[1] / "broken").exists():
        raise TrainingError("every loss must be finite, got nan")
    trained = {"full": epochs, "frozen": 0}.get(config.freezing.policy, 0) or len(
        range(0, epochs, rho or epochs)
    )
    for tracker in trackers:
        tracker.start(to_dict(config), {"num_stages": 4, "rho": rho}, 0)
    for epoch in range(epochs):
        record = {"epoch": epoch, "frozen_stages": 0, "map50": 0.1, "executed_flops": 2}
        for tracker in trackers:
            tracker.epoch(record)
        on_epoch(record, None)
    record = {"config": to_dict(config), "epochs": [{}] * epochs}
    checkpoint = save_checkpoint(directory / "checkpoints", epochs, {"epoch": epochs}, record)
    summary = {
        "map50": 0.3 + 0.05 * trained + 0.001 * config.seed,
        "compute_ratio": 0.4 + 0.6 * trained / epochs,
    }
    summary |= {"epochs": epochs, "epochs_trained": epochs, "checkpoint": str(checkpoint)}
    summary |= {"own": {"executed_flops": 2 * epochs}, "device_seconds": 10.0 * epochs}
    for tracker in trackers:
        tracker.finish(summary)
    return summary


def on_val(checkpoint: Path, config: Config) -> dict[str, float]:
    assert ray.get_runtime_context().get_actor_id() is not None, "it is evaluated in the driver"
    assert config.training.epochs == EPOCHS or config.freezing.policy == "full"  # its own
    return {"map50": 0.2, "ap50/none": float("nan")}


@pytest.mark.ray
def test_controls_seeds_and_val(two_cpus, tmp_path):
    keys = {"search.controls": [0.5], "data.selection_fraction": 0.2, "tracking.mlflow": False}
    config = with_overrides(Config(), {"training.epochs": EPOCHS, **keys})
    said: list[str] = []
    options: dict[str, Any] = {"study_name": "s", "studies_dir": tmp_path, "progress": said.append}
    options |= {"run": arithmetic, "begin": four_stages, "evaluate": on_val, "trials": 3}
    first = search(config, RHO, **options)
    assert [row["role"] for row in first["trials"]] == ["baseline", "baseline", "control", "setting"]
    control = first["trials"][2]
    assert (control["epochs"], control["compute_ratio"]) == (3, 0.5)  # of the base's full training
    assert first["controls"] == [2, 0]
    assert {row["number"] for row in first["trials"] if "val_map50" in row} >= {*first["front"]}
    assert any(line.startswith("trial 0, on the front: val map50 0.200") for line in said)
    assert "--freezing.policy full --training.epochs 3" in control["command"]

    (tmp_path / "s" / "broken").touch()
    seeds = with_overrides(config, {"search.seeds_on_front": 3})
    broken = search(seeds, RHO, **options)
    runs = {(row["number"], run["seed"]): run["state"] for row in broken["trials"] for run in row["seeds"]}
    repeated = {number for number, _ in runs}
    assert {0, 1, 2} <= repeated
    assert set(runs) == {(number, seed) for number in repeated for seed in (1, 2)}
    assert {seed: state for (_, seed), state in runs.items()} == {1: "FAIL", 2: "COMPLETE"}
    (tmp_path / "s" / "broken").unlink()
    (tmp_path / "s" / "trials" / "0-seed-2" / "val.json").unlink()  # as if it had been killed before
    said.clear()
    whole = search(seeds, RHO, **options)
    assert sum("started" in line for line in said) == len(repeated)
    assert any(line.startswith("trial 0-seed-2, on the front: val map50 0.200") for line in said)
    full = whole["trials"][0]
    assert [run["map50"] for run in full["seeds"]] == pytest.approx([0.601, 0.602])
    assert full["map50"] == pytest.approx(0.6)  # its own, of the first seed
    assert full["accuracy_mean"] == pytest.approx(0.601)
    assert whole["noise"]["seed_sd"] == pytest.approx(0, abs=1e-9)
    assert whole["epochs_trained"] == 6 * 3 + 3 + sum(
        run["epochs"] for row in whole["trials"] for run in row["seeds"]
    )
    said.clear()
    assert search(seeds, RHO, **options) == json.loads(json.dumps(whole))
    assert said == ["study s: all 3 trials are done"]
    for _ in range(100):  # what a search held is free soon after it
        if ray.available_resources() == ray.cluster_resources():
            break
        time.sleep(0.1)
    held, there = ray.available_resources(), ray.cluster_resources()
    assert {name: held.get(name) for name in ("CPU", "memory")} == {
        name: there.get(name) for name in ("CPU", "memory")
    }
    assert not list((tmp_path / "s").glob("tune*"))


def test_a_control_is_the_whole_training_in_short() -> None:
    base = {"training.epochs": 12, "training.warmup_steps": 100, "training.schedule": "step"}
    config = with_overrides(Config(), {**base, "training.milestones": [8, 11], "freezing.policy": "frozen"})
    overrides = control_overrides(config, 0.5)
    assert overrides == {
        "freezing.policy": "full",
        "training.epochs": 6,
        "training.warmup_steps": 50,
        "training.milestones": [4, 6],
    }
    with_overrides(config, overrides)
    cosine = with_overrides(config, {"training.schedule": "cosine", "training.warmup_steps": 0})
    assert control_overrides(cosine, 0.75) == {"freezing.policy": "full", "training.epochs": 9}
    assert [one["training.epochs"] for one in controls_of(config)] == [9, 6]
    assert controls_of(with_overrides(config, {"training.epochs": 1})) == []
    assert len(controls_of(with_overrides(config, {"search.controls": [0.5, 0.51, 0.99]}))) == 1
