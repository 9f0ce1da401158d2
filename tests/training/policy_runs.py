"""Small trainings of every policy, whole and in pieces, for one process and for ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dbf_ray.build.spec
import dbf_ray.run.runner
from dbf_ray.config import Config, load_config
from dbf_ray.cost import FlopTable
from dbf_ray.detectors import BACKBONES
from dbf_ray.freezing import Horizon, Schedule
from dbf_ray.run import find_resume, run, run_directory
from dbf_ray.tracking import read_epochs
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint
from tests.detectors.narrow import NARROW
from tests.freezing.policy_members import MEMBERS

EPOCHS = 6
BASE: dict[str, Any] = {
    "data.train_images": 8,
    "data.val_images": 2,
    "data.image_size": 64,
    "detector.backbone": "narrow",
    "detector.fpn_channels": 8,
    "detector.head_convs": 0,
    "training.epochs": EPOCHS,
    "training.batch_size": 4,
    "training.lr": 1e-3,
    "training.warmup_steps": 2,
    "training.threads": 1,
    "tracking.mlflow": False,
}
BLOCKS = {
    "freezing.interval": {"unit": "steps", "every": 3}
}  # two steps an epoch: every other block crosses an epoch's end
SETTINGS: dict[str, dict[str, Any]] = {
    member.name: {
        "freezing.policy": member.name,
        **{f"freezing.{key}": value for key, value in member.trained.items()},
    }
    for member in MEMBERS
}
IN_BLOCKS = {
    f"{name} in blocks": {**SETTINGS[name], **BLOCKS}
    for name in ("step", "layer_decay", "gradnorm", "aimd", "drift", "plateau")
}
THAWING = {
    "training.ema": 0.9,
    "freezing.momentum": "reset",
    "freezing.rewarm_steps": 3,
    "detector.norm_eval": False,
}


class Ladder(Schedule):
    """A policy from outside, with every kind of prefix in six epochs."""

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        return (0, 4, 3, 4, 2, 4)[t]


_TABLES: dict[str, FlopTable] = {}


def make_cheap() -> None:
    """In this process: rows for the small backbone, FLOPs counted once for all these runs, whose detectors
    are alike, and no pictures.
    """
    BACKBONES.update(NARROW)
    dbf_ray.build.spec.FlopTable = lambda detector: _TABLES.setdefault("one", FlopTable(detector))  # type: ignore[misc, assignment]
    dbf_ray.run.runner.draw = lambda *_: []


def setting(folder: Path, name: str, **changes: Any) -> Config:
    """A small run called ``name``, whose folder is in ``folder``."""
    return load_config(None, {**BASE, "runs_dir": str(folder), "name": name, **changes})


def whole(config: Config) -> dict[str, Any]:
    """Train without a stop; the summary."""
    return run(config, quiet=True)


def in_pieces(config: Config) -> dict[str, Any]:
    """Train one epoch at a time, each time from the checkpoint alone; the summary."""
    folder = run_directory(config)
    for epoch in range(config.training.epochs - 1):
        resume = find_resume(config, folder) if epoch else None
        run(config, quiet=True, resume=resume, on_epoch=lambda record, _: False)
    return run(config, quiet=True, resume=find_resume(config, folder))


def left(config: Config) -> dict[str, Any]:
    """What a finished run left: its last checkpoint's tensors and states, and what each epoch did."""
    folder = run_directory(config)
    state, _ = load_checkpoint(list_checkpoints(folder / "checkpoints")[-1])
    keys = ("loss", "map50", "frozen_stages", "steps_per_prefix", "lr", "executed_flops", "allreduce_bytes")
    return {
        **{key: state.get(key) for key in ("model", "optimizer", "scheduler", "ema")},
        "epochs": [[epoch[key] for key in keys] for epoch in read_epochs(folder)],
    }


def differences(one: Any, two: Any, place: str = "") -> list[str]:
    """Where two trees of tensors and plain values differ in any bit."""
    if isinstance(one, dict) and isinstance(two, dict):
        if one.keys() != two.keys():
            return [f"{place}: {sorted(map(str, one.keys() ^ two.keys()))}"]
        return [found for key in one for found in differences(one[key], two[key], f"{place}/{key}")]
    if isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        return [
            found
            for index, pair in enumerate(zip(one, two, strict=True))
            for found in differences(*pair, f"{place}/{index}")
        ]
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return [] if torch.equal(one, two) else [place]
    return [] if one == two else [f"{place}: {one!r}, {two!r}"]
