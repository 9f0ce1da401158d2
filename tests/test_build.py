"""From configuration to objects: what a plan knows before training, and what is refused before it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dbf_ray.build import Plan, build_training, prepare
from dbf_ray.build_data import choose_device, loader_workers
from dbf_ray.config import Config, load_config
from dbf_ray.errors import ConfigError, DataError, DbfRayError, ResourceError

TINY: dict[str, Any] = {
    "data.train_images": 8,
    "data.val_images": 3,
    "data.image_size": 64,
    "detector.backbone": "resnet18",
    "detector.fpn_channels": 16,
    "detector.head_convs": 1,
    "training.epochs": 6,
    "training.batch_size": 4,
    "training.device": "cpu",
    "tracking.mlflow": False,
}


def tiny(**changes: Any) -> Config:
    return load_config(None, {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}})


@pytest.fixture(scope="module")
def plan() -> Plan:
    return prepare(tiny(freezing__policy="step", freezing__rho=4))


def test_a_plan_knows_timeline_and_cost(plan: Plan) -> None:
    assert plan.num_stages == 4
    assert plan.frozen_prefixes == [0, 4, 4, 4, 0, 4]
    assert plan.budget == 2
    flops = plan.flops_per_prefix
    assert len(flops) == 5
    assert flops == sorted(flops, reverse=True)
    assert plan.compute_ratio == pytest.approx((2 * flops[0] + 4 * flops[4]) / (6 * flops[0]))
    # Training costs three forwards; a frozen backbone only its own forward, and the gradients that reach it are not needed.
    saved = 1 - flops[4] / flops[0]
    assert saved == pytest.approx(2 / 3 * plan.backbone_share, abs=0.05)
    assert plan.eval_split == "val"
    assert (len(plan.train_set), len(plan.eval_set)) == (8, 3)


def test_stages_that_are_always_frozen_are_in_the_timeline_and_in_the_reference() -> None:
    plan = prepare(tiny(detector__frozen_stages=2, freezing__policy="step", freezing__rho=2))
    assert plan.frozen_prefixes == [2, 4, 2, 4, 2, 4]
    flops = plan.flops_per_prefix
    assert plan.compute_ratio == pytest.approx((flops[2] + flops[4]) / (2 * flops[2]))
    assert prepare(tiny(detector__frozen_stages=2)).compute_ratio == 1.0


def test_a_part_of_train_can_be_held_out_to_select_on() -> None:
    plan = prepare(tiny(data__selection_fraction=0.5, training__batch_size=2))
    assert plan.eval_split == "selection"
    assert len(plan.train_set) + len(plan.eval_set) == 8
    assert not set(plan.train_set.image_ids) & set(plan.eval_set.image_ids)


def test_the_seed_alone_makes_the_weights() -> None:
    torch.manual_seed(1)
    one = prepare(tiny(seed=3)).detector.state_dict()
    torch.manual_seed(2)
    two = prepare(tiny(seed=3)).detector.state_dict()
    other = prepare(tiny(seed=4)).detector.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_training_gets_what_was_configured() -> None:
    changes = {"training__optimizer": "sgd", "training__momentum": 0.5, "training__lr": 0.25, "training__backbone_lr_factor": 0.1}
    plan = prepare(tiny(**changes, training__schedule="cosine", training__accumulation=2, training__clip_norm=None))
    training = build_training(plan, quiet=True)
    assert isinstance(training.optimizer, torch.optim.SGD)
    groups = training.optimizer.param_groups
    assert {group["momentum"] for group in groups} == {0.5}
    assert {(group["stage"] < 0, group["factor"]) for group in groups} == {(True, 1.0), (False, 0.1)}
    optimized = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(optimized) == sorted(id(parameter) for parameter in plan.detector.parameters())
    rate = training.learning_rate
    assert (rate.base, rate.schedule, rate.epochs) == (0.25, "cosine", 6)
    assert (training.accumulation, training.clip_norm, training.train_loader.steps_per_epoch) == (2, None, 2)


def test_detector_options_get_their_types() -> None:
    plan = prepare(tiny(detector__score_threshold="0.2", detector__anchor_angles=[0, 45], detector__detections_per_image=7))
    detector: Any = plan.detector
    assert (detector.score_threshold, detector.detections_per_image) == (0.2, 7)
    assert detector.anchors.per_cell == 3 * 3 * 2


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"detector__score_threshold": "high"}, ConfigError, "detector.score_threshold of rotated_retinanet: .* got 'high'"),
        ({"detector__anchor_ratios": 2.0}, ConfigError, r"detector.anchor_ratios of .* written \[a, b\], got 2.0"),
        ({"detector__topk_candidates": 2.5}, ConfigError, "detector.topk_candidates .* got 2.5"),
        ({"training__batch_size": 9}, DataError, "batch of 9 images, got 8"),
        ({"data__selection_fraction": 0.9}, DataError, "batch of 4 images, got 1"),
        ({"data__classes": ["ship"]}, DataError, "leave data.classes out"),
        ({"freezing__policy": "step", "freezing__rho": True}, ConfigError, "rho must be an integer >= 1, got True"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], kind: type[DbfRayError], message: str) -> None:
    with pytest.raises(kind, match=message):
        prepare(tiny(**changes))


def test_policy_and_options_are_checked_before_the_data_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr("dbf_ray.build_data.make_dataset", read)
    for changes in ({"freezing__policy": "stpe"}, {"detector__name": "yolo"}, {"detector__anchors": 1}):
        with pytest.raises(ConfigError):
            prepare(tiny(**changes))


def cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def there_are(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return there_are


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    there_are = cuda(monkeypatch)
    there_are(0)
    assert choose_device(tiny(training__device="auto")) == torch.device("cpu")
    with pytest.raises(ResourceError, match="cuda, but torch sees no CUDA device; set it to cpu or auto"):
        choose_device(tiny(training__device="cuda"))
    there_are(2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device(tiny(training__device="auto")) == torch.device("cuda", 1)
    assert choose_device(tiny(training__device="cpu")) == torch.device("cpu")


def test_the_backbones_share_is_a_fraction(plan: Plan) -> None:
    assert 0 < plan.backbone_share < 1
    assert math.isfinite(plan.cost_of([4]))


@pytest.mark.parametrize(
    ("configured", "device", "cpus", "gpus", "processes"),
    [
        (None, "cpu", 16, 0, 0),
        (3, "cpu", 16, 0, 3),
        (None, "cuda", 16, 1, 8),
        (None, "cuda", 16, 4, 3),
        (None, "cuda", 2, 2, 1),
        (0, "cuda", 16, 1, 0),
    ],
)
def test_loading_processes(
    configured: int | None, device: str, cpus: int, gpus: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None on a CPU, which they would share; for a GPU its share of the CPUs."""
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert loader_workers(load_config(None, {"data.loader_workers": configured}), torch.device(device)) == processes


def test_the_loader_is_fed_as_configured() -> None:
    config = {"data.train_images": 8, "data.val_images": 2, "data.image_size": 64, "training.batch_size": 4, "data.loader_workers": 2}
    training = build_training(prepare(load_config(None, {**config, "data.prefetch": 5, "data.decoded_gb": 0.001})), quiet=True)
    for loader in (training.train_loader, training.eval_loader):
        inner = loader._loader  # type: ignore[attr-defined]
        assert (inner.num_workers, inner.prefetch_factor, inner.pin_memory) == (2, 5, training.device.type == "cuda")
        store = inner.dataset.view._resized
        assert store.budget_used <= 1e6
    assert training.train_loader._loader.dataset.view._resized.kept > 0  # type: ignore[attr-defined]
