"""Each detector learns eight real images by heart: the whole chain from files to average precision, on real
ships.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dbf_ray.data import Subset, make_dataset
from dbf_ray.data.transforms import EvalView
from dbf_ray.detectors import DETECTORS, make_detector
from dbf_ray.evaluation import Evaluator
from dbf_ray.freezing import Freezer

# Ships are slim: anchors like those of jobs/configs/hrsc_mobilenet_v2.yaml, in two sizes; without anchors,
# and with proposals, the reference's do.
OPTIONS: dict[str, dict[str, Any]] = {
    "rotated_retinanet": {
        "head_convs": 2,
        "anchor_scales": [0.5, 0.8],
        "anchor_ratios": [5.0],
        "anchor_angles": [-90.0, -67.5, -45.0, -22.5, 0.0, 22.5, 45.0, 67.5],
        "positive_iou": 0.4,
        "negative_iou": 0.3,
    },
    "rotated_fcos": {"head_convs": 2},
    "rotated_faster_rcnn": {"roi_channels": 256, "roi_samples": 128},
    "oriented_rcnn": {"roi_channels": 256, "roi_samples": 128},
}
STEPS = 300


def test_every_detector_has_options() -> None:
    assert set(OPTIONS) == set(DETECTORS)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_it_learns_eight_images_of_hrsc2016(name: str, shared: Path) -> None:
    ships = make_dataset(
        "dota",
        "train",
        root=shared / "data" / "hrsc2016",
        classes=["ship"],
        images=0,
        image_size=320,
        drop_empty=True,
    )
    view = EvalView(Subset(ships, list(range(0, 8 * 20, 20))), 320)
    samples = [view[index] for index in range(8)]
    torch.manual_seed(0)
    weights = shared / "weights" / "mobilenet_v2_features_torchvision.pth"
    detector = make_detector(
        name,
        backbone="mobilenet_v2",
        weights_backbone=weights,
        num_classes=1,
        fpn_channels=64,
        **OPTIONS[name],
    )
    Freezer(detector.backbone).apply(0)
    detector.train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=STEPS, pct_start=0.2)
    for step in range(STEPS):
        batch = samples[step % 2 :: 2]
        losses = detector([image for image, _ in batch], [{**target, "seed": step} for _, target in batch])
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 35.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
    detector.eval()
    evaluator = Evaluator(1, ["ship"])
    for image, target in samples:
        evaluator.update(detector([image]), [target])
    assert evaluator.compute()["map50"] >= 0.9
