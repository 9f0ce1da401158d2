from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from dbf_ray.build import RunSpec
from dbf_ray.data import SyntheticDataset, make_target
from dbf_ray.data.samples import Dataset, Sample, Subset
from dbf_ray.detectors import make_detector
from dbf_ray.errors import ConfigError, WeightsError
from dbf_ray.predict.checkpoint import network, trained_window
from dbf_ray.predict.options import Options
from dbf_ray.run.summary import training_window


class Nothing:
    """A data set of one image that does not tell its size."""

    classes, image_ids = ["thing"], ["a"]

    def __len__(self) -> int:
        return 1

    def load(self, index: int) -> Sample:
        return torch.zeros(3, 8, 8, dtype=torch.uint8), make_target(torch.zeros(0, 5), [], [], "a", (8, 8))


def plan_of(train_set: Dataset) -> RunSpec:
    return cast("RunSpec", SimpleNamespace(train_set=train_set, images=SimpleNamespace(size=96)))


def test_a_run_notes_the_median_long_side_of_its_training_images() -> None:
    scenes = SyntheticDataset("train", 5, 128)
    assert training_window(plan_of(scenes)) == 128
    scenes.sizes = [(100, 50), (50, 300), (700, 10), (20, 30), (200, 200)]
    assert training_window(plan_of(scenes)) == 200
    assert training_window(plan_of(Subset(scenes, [0, 1, 3]))) == 100
    assert training_window(plan_of(Nothing())) == 96


def test_a_checkpoint_says_how_large_its_windows_are(tmp_path: Path) -> None:
    def window(record: Any) -> int:
        (tmp_path / "record.json").write_text(json.dumps(record))
        return trained_window(tmp_path)

    assert window({"window": 1000}) == 1000
    for wrong in (0, -3, 1.5, "8", True, None):
        with pytest.raises(WeightsError, match=r"window in record\.json must be a number of pixels >= 1"):
            window({"window": wrong})
    for torn in ("{", "[]"):
        (tmp_path / "record.json").write_text(torn)
        with pytest.raises(WeightsError, match="cannot read checkpoint"):
            trained_window(tmp_path)


def test_the_default_overlap_is_that_of_dota() -> None:
    assert Options().overlap_of(1024) == 200
    assert Options().overlap_of(1) == 0
    assert Options(overlap=0).overlap_of(64) == 0
    with pytest.raises(ConfigError, match=r"\[0, 64\), got 64"):
        Options(overlap=64).overlap_of(64)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_network_gives_what_the_detector_gives_and_lower_scores_if_asked(precision: str) -> None:
    detector = make_detector(
        "rotated_retinanet",
        backbone="mobilenet_v3_small",
        num_classes=2,
        weights_backbone=None,
        fpn_channels=16,
        head_convs=1,
    ).eval()
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)]
    scores = {}
    for score in (0.5, 0.005):
        detect = network(detector, precision, score)
        (found,) = detect(images)
        assert not found["boxes"].requires_grad
        scores[score] = found["scores"].float()
    assert detector.score_threshold == 0.005
    assert len(scores[0.005]) > len(scores[0.5]) == 0, (
        "an untrained network is sure of nothing: its prior is 0.01"
    )
    assert float(scores[0.005].min()) > 0.005
