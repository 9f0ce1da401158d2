"""A training small enough to run in a second, on generated scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.config import Config, load_config

TINY: dict[str, Any] = {
    "data.name": "synthetic",
    "data.train_images": 16,
    "data.val_images": 4,
    "data.image_size": 96,
    "detector.backbone": "resnet18",
    "detector.fpn_channels": 16,
    "detector.head_convs": 1,
    "training.epochs": 4,
    "training.batch_size": 8,
    "training.lr": 1e-3,
    "training.warmup_steps": 2,
    "training.milestones": [3],
    "training.threads": 1,
    "evaluation.every": 2,
    "tracking.mlflow": False,
}


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Config]:
    """Makes a tiny configuration whose runs folder is the test's own."""

    def make(**changes: Any) -> Config:
        overrides = {key.replace("__", "."): value for key, value in changes.items()}
        return load_config(None, {**TINY, "runs_dir": str(tmp_path / "runs"), **overrides})

    return make
