"""Small trainings of every policy, whole and in pieces, for one process and for ranks."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dbf_ray.run.runner
from dbf_ray.build import prepare
from dbf_ray.config import Config, load_config
from dbf_ray.cost import FlopTable
from dbf_ray.freezing import Horizon, Schedule
from dbf_ray.run import find_resume, run, run_directory
from dbf_ray.tracking import read_epochs
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint
from tests.freezing.policy_members import MEMBERS
from tests.tiny import TINY, add_narrow, tiny_config

EPOCHS = 6
BASE: dict[str, Any] = {**TINY, "training.epochs": EPOCHS}
# two steps an epoch: every other block crosses an epoch's end
BLOCKS = {"freezing.interval": {"unit": "steps", "every": 3}}
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


@functools.cache
def costs() -> FlopTable:
    """FLOPs of all these runs, whose detectors are alike, counted once in a process."""
    return FlopTable(prepare(tiny_config()).detector)


def costs_of(config: Config) -> FlopTable | None:
    """The same for a run with the same detector; None for another, which is to be counted."""
    return costs() if config.detector == tiny_config().detector else None


def make_cheap() -> None:
    """In this process: rows for the small backbones, and no pictures."""
    add_narrow()
    dbf_ray.run.runner.draw = lambda *_: []


def setting(folder: Path, name: str, **changes: Any) -> Config:
    """A small run called ``name``, whose folder is in ``folder``."""
    return load_config(None, {**BASE, "runs_dir": str(folder), "name": name, **changes})


def whole(config: Config) -> dict[str, Any]:
    """Train without a stop; the summary."""
    return run(config, quiet=True, table=costs())


def in_pieces(config: Config, length: int = 1) -> dict[str, Any]:
    """Train ``length`` epochs at a time, each time from the checkpoint alone; the summary."""
    folder, epochs = run_directory(config), config.training.epochs

    def until(stop: int) -> dict[str, Any]:
        resume = find_resume(config, folder) if stop > length else None
        return run(
            config,
            quiet=True,
            resume=resume,
            on_epoch=lambda record, _: record["epoch"] + 1 != stop,
            table=costs(),
        )

    for stop in range(length, epochs, length):
        until(stop)
    return run(config, quiet=True, resume=find_resume(config, folder), table=costs())


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
