"""Small trainings with a frozen prefix, whole and killed, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dbf_ray.config import Config
from dbf_ray.run import run, run_directory
from dbf_ray.tracking import read_epochs
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint
from tests.tiny import write_image
from tests.training.policy_runs import costs_of

STEP = {"freezing.policy": "step", "freezing.rho": 3}
FLOAT32 = {"freezing.cache_dtype": "float32"}


def trained(config: Config) -> dict[str, Any]:
    """The last checkpoint's weights and optimizer of a whole run, and its losses."""
    run(config, quiet=True, table=costs_of(config))
    state, _ = load_checkpoint(list_checkpoints(run_directory(config) / "checkpoints")[-1])
    losses = [epoch["loss"] for epoch in read_epochs(run_directory(config))]
    return {"model": state["model"], "optimizer": state["optimizer"], "losses": losses}


def hits_of(config: Config) -> list[int]:
    return [epoch["cache_hits"] for epoch in read_epochs(run_directory(config))]


def killed_after(config: Config, epoch: int) -> None:
    """Train until the end of an epoch, and no further: what a disk cache holds then is left."""

    def kill(record: dict[str, Any], _: Path | None) -> bool:
        if record["epoch"] == epoch:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        run(config, quiet=True, on_epoch=kill)


def write_noise(root: Path, sizes: list[tuple[int, int]], seed: int = 0) -> None:
    """Random images of these (height, width), one ship each, the same to train on and to evaluate."""
    for index, size in enumerate(sizes):
        pixels = np.random.default_rng(index + seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        for split in ("train", "val"):
            write_image(root / split, str(index), Image.fromarray(pixels), (4, 4, 20, 12))
