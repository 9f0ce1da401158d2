"""A detector trained on frozen features in bf16 is as good as one trained on them in float32: real images, real weights, the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dbf_ray.config import load_config
from dbf_ray.run import run

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
DATA, WEIGHTS = SHARED / "data" / "hrsc2016", SHARED / "weights" / "mobilenet_v2_features_torchvision.pth"
LIMIT = 0.01
WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32 without engine": {"freezing.engine": False},  # the same but for rounding, which alone moves a training by as much
    "engine in bf16": {"freezing.engine_precision": "bf16"},
    "cache in bf16": {"freezing.cache_dtype": "bf16"},
}
SETTINGS = {
    **{"data.root": str(DATA), "detector.weights_backbone": str(WEIGHTS), "data.image_size": 256, "data.canvas": "square"},
    **{"data.view_per": "stretch", "freezing.policy": "frozen", "freezing.cache": "ram", "freezing.cache_dtype": "float32"},
    **{"training.precision": "float32", "training.epochs": 10, "training.lr": 1e-3, "evaluation.every": 10, "tracking.mlflow": False},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*has to emulate")
def test_map50_is_that_of_float32(tmp_path: Path) -> None:
    if not (DATA.is_dir() and WEIGHTS.is_file()):
        pytest.skip(f"needs real images and weights in {SHARED}, they are not there")
    scores = {}
    for name, changes in WAYS.items():
        fixed = {"runs_dir": str(tmp_path), "name": name, "training.threads": torch.get_num_threads()}
        config = load_config(ROOT / "jobs" / "configs" / "hrsc_mobilenet_v2.yaml", {**SETTINGS, **fixed, **changes})
        scores[name] = run(config, quiet=True)["map50"]
        print(f"{name}: map50 {scores[name]:.4f}")
    exact = [scores["float32"], scores["float32 without engine"]]
    assert min(exact) > 0.1  # it did learn
    for name in WAYS:
        assert min(exact) - LIMIT <= scores[name] <= max(exact) + LIMIT, scores
