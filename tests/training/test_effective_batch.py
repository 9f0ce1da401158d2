"""A step is the same however its effective batch is spread: 1 x 8 = 4 x 2 = two ranks x 4."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dbf_ray.build import build_training, prepare
from dbf_ray.config import load_config
from dbf_ray.data import Dataset, Sample
from dbf_ray.data.samples import make_target
from dbf_ray.detectors import DETECTORS
from dbf_ray.training.loop import train_epoch
from tests.tiny import TINY, add_narrow, on_ranks

pytestmark = pytest.mark.usefixtures("narrow")
Result = tuple[dict[str, float], dict[str, torch.Tensor]]
SETTINGS: dict[str, Any] = {
    **TINY,
    "data.train_images": 16,
    "training.batch_size": 8,
    "training.optimizer": "sgd",
    "training.lr": 1e-2,
    "training.warmup_steps": 0,
    "training.clip_norm": 1.0,
}


# At random weights proposals score alike, and rounding, which differs with the size of a batch, decides their
# order; so all of them are taken.
EVERY_REGION: dict[str, Any] = {
    "detector.roi_channels": 16,
    "detector.rpn_samples": 64,
    "detector.rpn_nms_threshold": 1.0,
    "detector.proposals": 10000,
    "detector.roi_samples": None,
}


class MixedSizes:
    """Generated scenes, every second one cut to a landscape and every third to a portrait; a quarter of them
    has no objects.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.classes, self.image_ids = dataset, dataset.classes, dataset.image_ids

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, index: int) -> Sample:
        image, target = self.dataset.load(index)
        height, width = (32, 64) if index % 2 else (64, 32) if index % 3 else (64, 64)
        if index % 4 == 1:
            target = make_target(torch.zeros(0, 5), [], [], target["image_id"], (height, width))
        return image[:, :height, :width], target


def train(detector: str, accumulation: int, workers: int) -> Result:
    """Losses and weights after one epoch of two steps."""
    torch.set_num_threads(1)
    options = EVERY_REGION if "rcnn" in detector else {}
    spread = {"detector.name": detector, "training.accumulation": accumulation, "cluster.workers": workers}
    config = load_config(None, {**SETTINGS, **options, **spread})
    spec = prepare(config)
    training = build_training(replace(spec, train_set=MixedSizes(spec.train_set)), quiet=True)
    training.ledger.begin_epoch(0)
    losses, _ = train_epoch(training, 0)
    return losses, training.detector.state_dict()


def worker(rank: int, folder: str) -> None:
    add_narrow()
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {detector: train(detector, accumulation=1, workers=2) for detector in DETECTORS}
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    """What each of two ranks ends with, for each detector."""
    folder = tmp_path_factory.mktemp("ranks")
    on_ranks(worker, str(folder))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module", params=DETECTORS)
def detector(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(detector: str) -> Result:
    return train(detector, accumulation=1, workers=1)


def compare(one: Result, two: Result) -> None:
    assert one[0] == pytest.approx(two[0], rel=1e-5)
    for name, tensor in one[1].items():
        torch.testing.assert_close(
            tensor, two[1][name], atol=1e-5, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_accumulation(detector: str, whole: Result) -> None:
    compare(train(detector, accumulation=4, workers=1), whole)


def test_two_ranks(detector: str, whole: Result, ranks: list[dict[str, Result]]) -> None:
    compare(ranks[0][detector], whole)
    assert all(
        torch.equal(tensor, ranks[1][detector][1][name]) for name, tensor in ranks[0][detector][1].items()
    )


def test_training_moved_the_weights(detector: str, whole: Result) -> None:
    options = EVERY_REGION if "rcnn" in detector else {}
    before = prepare(
        load_config(None, {**SETTINGS, **options, "detector.name": detector})
    ).detector.state_dict()
    moved = [
        name
        for name, tensor in before.items()
        if not torch.equal(tensor, whole[1][name]) and "running" not in name
    ]
    for part in ("backbone", "neck", "head"):
        assert any(name.startswith(part) for name in moved), part
