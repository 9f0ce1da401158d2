"""Detections from frozen features in bf16 are as good as those from float32: real images, real weights, the same seed.

A training multiplies any difference, rounding too, so that two trainings in float32 which add in another order end .01 to .03 map50 apart
(docs/results.md). What precision itself does is told by one trained detector; a training in bf16 is compared with the span of two in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dbf_ray.build_data import build_eval_loader, make_split
from dbf_ray.config import Config, load_config
from dbf_ray.detectors.backbones import FrozenFeatures
from dbf_ray.detectors.backbones.engine import PrefixEngine
from dbf_ray.evaluate import load_detector
from dbf_ray.evaluation import Evaluator
from dbf_ray.run import run, run_directory
from dbf_ray.training.checkpoint import list_checkpoints

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
DATA, WEIGHTS = SHARED / "data" / "hrsc2016", SHARED / "weights" / "mobilenet_v2_features_torchvision.pth"
LIMIT = 0.01
WAYS: dict[str, dict[str, Any]] = {
    "float32 without engine": {"freezing.engine": False},  # the same but for rounding
    "engine in bf16": {"freezing.engine_precision": "bf16"},
    "cache in bf16": {"freezing.cache_dtype": "bf16"},
}
SETTINGS = {
    **{"data.root": str(DATA), "detector.weights_backbone": str(WEIGHTS), "data.image_size": 256, "data.canvas": "square"},
    **{"data.view_per": "stretch", "freezing.policy": "frozen", "freezing.cache": "ram", "freezing.cache_dtype": "float32"},
    **{"training.precision": "float32", "training.epochs": 10, "training.lr": 1e-3, "evaluation.every": 10, "tracking.mlflow": False},
}
Compute = Callable[[torch.Tensor], FrozenFeatures]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*has to emulate")]


def make_config(folder: Path, name: str, changes: dict[str, Any]) -> Config:
    fixed = {"runs_dir": str(folder), "name": name, "training.threads": torch.get_num_threads()}
    return load_config(ROOT / "jobs" / "configs" / "hrsc_mobilenet_v2.yaml", {**SETTINGS, **fixed, **changes})


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, float]:
    """A training in float32, and its map50."""
    if not (DATA.is_dir() and WEIGHTS.is_file()):
        pytest.skip(f"needs real images and weights in {SHARED}, they are not there")
    config = make_config(tmp_path_factory.mktemp("runs"), "float32", {})
    return config, run(config, quiet=True)["map50"]


def test_one_detector_on_features_of_either_precision(float32: tuple[Config, float]) -> None:
    config, score = float32
    detector, classes = load_detector(list_checkpoints(run_directory(config) / "checkpoints")[-1], config)
    backbone = detector.backbone
    backbone.no_grad_stages = backbone.num_stages

    def rounded(dtype: torch.dtype) -> Compute:
        return lambda images: [None if part is None else part.to(dtype).float() for part in backbone.frozen_features(images)]

    ways: dict[str, Compute] = {
        "stages": backbone.frozen_features,
        "engine in float32": PrefixEngine(backbone),
        "engine in bf16": PrefixEngine(backbone, torch.bfloat16),
        "cached in bf16": rounded(torch.bfloat16),
        "cached in float16": rounded(torch.float16),
    }
    evaluators = {name: Evaluator(len(classes), classes) for name in ways}
    with torch.no_grad():
        for images, targets in build_eval_loader(config, make_split(config, "val", classes)):
            batch = detector.prepare(images)
            for name, way in ways.items():
                evaluators[name].update(detector(replace(batch, frozen=way(batch.images))), targets)
    scores = {name: evaluator.compute()["map50"] for name, evaluator in evaluators.items()}
    print(scores)
    assert scores["stages"] == pytest.approx(score, abs=1e-3)  # batches of the training's evaluation round otherwise
    assert score > 0.1  # it did learn
    for name in ways:
        assert abs(scores[name] - scores["stages"]) <= LIMIT, scores


def test_trainings_in_bf16_end_as_near_as_rounding_lets_them(float32: tuple[Config, float]) -> None:
    config, score = float32
    scores = {"float32": score}
    for name, changes in WAYS.items():
        scores[name] = run(make_config(config.runs_dir, name, changes), quiet=True)["map50"]
        print(f"{name}: map50 {scores[name]:.4f}")
    exact = [scores["float32"], scores["float32 without engine"]]
    for name in WAYS:
        assert min(exact) - LIMIT <= scores[name] <= max(exact) + LIMIT, scores
