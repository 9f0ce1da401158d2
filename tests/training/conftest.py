"""A training small enough to run in a second, on generated scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dbf_ray.run.runner
from dbf_ray.config import Config, load_config
from dbf_ray.detectors import BACKBONES
from tests.detectors.narrow import NARROW
from tests.training.frozen_runs import STEP
from tests.training.policy_runs import setting

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


@pytest.fixture
def narrow_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Makes a run of a narrow backbone in the test's own folder; its prefix is frozen two epochs of three
    unless changed.
    """
    for key, value in NARROW.items():
        monkeypatch.setitem(BACKBONES, key, value)
    monkeypatch.setattr(dbf_ray.run.runner, "draw", lambda *_: [])
    return lambda name, **changes: setting(
        tmp_path, name, **{**({} if "freezing.policy" in changes else STEP), **changes}
    )
