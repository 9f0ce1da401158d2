"""The tiny training of the tests: a fraction of a second, on generated scenes, with a narrow backbone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch.multiprocessing import start_processes

from dbf_ray import detectors
from dbf_ray.config import Config, load_config
from tests.detectors.narrow import NARROW

TINY: dict[str, Any] = {
    "data.train_images": 8,
    "data.val_images": 2,
    "data.image_size": 64,
    "detector.backbone": "narrow",
    "detector.fpn_channels": 8,
    "detector.head_convs": 0,
    "training.epochs": 4,
    "training.batch_size": 4,
    "training.lr": 1e-3,
    "training.warmup_steps": 2,
    "training.threads": 1,
    "tracking.mlflow": False,
    "evaluation.pictures_every": 0,  # which take longer than the training
    "search.controls": [],
}


def add_narrow() -> None:
    """Make the narrow backbone known in this process: a rank or a worker (tests have a fixture for it)."""
    detectors.BACKBONES.update(NARROW)  # not a copy, where this function came by value


def tiny_config(**changes: Any) -> Config:
    """The tiny training with changes, whose keys have ``__`` for ``.``."""
    return load_config(None, {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}})


def as_options(changes: dict[str, Any]) -> list[str]:
    """A command line's options for keys and values."""
    return [part for key, value in changes.items() for part in (f"--{key}", str(value))]


def write_image(split: Path, name: str, image: Image.Image, ship: tuple[int, int, int, int]) -> None:
    """An image as DOTA lays it out, with a ship at (left, top, right, bottom) pixels."""
    left, top, right, bottom = ship
    for folder in ("images", "labelTxt"):
        (split / folder).mkdir(parents=True, exist_ok=True)
    image.save(split / "images" / f"{name}.png")
    corners = f"{left} {top} {right} {top} {right} {bottom} {left} {bottom}"
    (split / "labelTxt" / f"{name}.txt").write_text(f"imagesource:drawn\ngsd:null\n{corners} ship 0\n")


def on_ranks(work: Callable[..., None], *arguments: Any, ranks: int = 2) -> None:
    """Call ``work(rank, *arguments)`` in as many processes, and wait for them.

    They are forked from a server that has imported what takes seconds, once for all tests, and done nothing
    else.
    """
    multiprocessing.set_forkserver_preload(["pytest", "torch.distributed", "dbf_ray.run"])
    start_processes(work, args=arguments, nprocs=ranks, start_method="forkserver")
