"""What steps cost, measured for real on the tiny training of the tests."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dbf_ray.build import build_training, prepare
from dbf_ray.config import Config
from dbf_ray.errors import ConfigError
from dbf_ray.plan import measured
from dbf_ray.plan.costs import Budget, Costs
from dbf_ray.plan.job import plan_data
from dbf_ray.plan.measured import Clock, Measurement, measure, measured_config, threads_of
from dbf_ray.plan.plan import RULES
from dbf_ray.training.loop import backward
from dbf_ray.training.micro_batches import OUT_OF_MEMORY, rehearse
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("narrow")
WIDE = {"detector__fpn_channels": 32, "freezing__policy": "step", "freezing__rho": 2}


def test_memory_of_other_batches_is_as_predicted() -> None:
    """Of a batch of the images that were measured, and of some prepared beside it."""
    config = measured_config(tiny_config(**WIDE))
    found, spec = measure(config), prepare(config)
    training = build_training(spec, quiet=True)
    taken = Measurement(spec, training, Clock(60))
    first, second = (taken.view[0, index] for index in taken.typical[:2])
    taken._step([first], 64)
    for images, parts in ((1, 2), (2, 2), (4, 2), (8, 2), (2, 4)):
        samples = [first, *[second] * (images - 1)]
        part = ([image for image, _ in samples], [target for _, target in samples])
        *_, peak = rehearse(training, [part] * parts, 64, backward)
        training.detector.zero_grad()
        assert found.bytes_of(images, parts) == pytest.approx(peak, rel=0.05)
    assert found.steps == (4, 4)
    assert 0 < found.evaluation_bytes[0] < found.step_bytes[0]
    assert (found.side, found.device, found.train_images, found.eval_images) == (64, "cpu", 8, 2)
    assert min(*found.step_seconds, found.load_seconds, found.reload_seconds, found.evaluation_seconds) > 0


def test_a_measurement_has_no_consequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny_config()
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    said: list[str] = []
    measure(config, said.append)
    after = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert list(tmp_path.iterdir()) == []
    assert said[0] == "measuring real steps on cpu at 64 px, 60 s at most"
    assert [line[:8] for line in said[1:]] == ["batch 1:", "batch 2:"]


@pytest.mark.parametrize(("workers", "own", "threads"), [(1, None, 1), (1, 3, 3), (2, None, 1), (2, 3, 3)])
def test_a_worker_has_its_own_threads(workers: int, own: int | None, threads: int) -> None:
    with threads_of(tiny_config(cluster__workers=workers, training__threads=own)):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 1


FEW = {"detector__proposals": 32, "detector__rpn_candidates": 64, "detector__roi_samples": 16}


@pytest.mark.parametrize(("name", "options"), [("rotated_fcos", {}), ("oriented_rcnn", FEW)])
def test_every_detector_and_augmentation_is_measured(name: str, options: dict[str, int]) -> None:
    config = tiny_config(
        **options,
        detector__name=name,
        data__augment__scales=[0.5, 1.5],
        data__pad_to="square",
        training__optimizer="sgd",
        training__ema=0.9,
        training__accumulation=2,
        cluster__workers=2,
        freezing__cache="ram",
    )
    found = measure(config)
    assert found.side == 96
    assert 0 < found.step_bytes[0] < found.step_bytes[1] < OUT_OF_MEMORY


def test_where_time_or_memory_is_short_smaller_images_tell() -> None:
    known = measure(tiny_config(**WIDE, data__image_size=256))
    small = measure(tiny_config(**WIDE, data__image_size=256), limit=0)
    assert small.steps == (0, 0)
    assert small.step_seconds[1] == 2 * small.step_seconds[0]
    assert [small.bytes_of(n) for n in (2, 4)] == pytest.approx([known.bytes_of(n) for n in (2, 4)], rel=0.1)
    assert small.evaluation_seconds == small.step_seconds[0] / 3


def test_an_image_that_a_device_does_not_hold_is_known_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("a fake")

    monkeypatch.setattr(measured, "rehearse", fails)
    assert measure(tiny_config()).bytes_of(1) >= OUT_OF_MEMORY


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """Plans by the rules of this page alone; the others take longer."""
    kept = {name: RULES[name] for name in ("batch", "memory", "epochs", "optimization")}
    monkeypatch.setattr("dbf_ray.plan.plan.RULES", kept)
    monkeypatch.setattr("dbf_ray.plan.plan.covered", lambda *_, **__: None)

    def plan(budget: Budget, **changes: object) -> dict:
        config: Config = tiny_config(data__image_size=64, data__train_images=32, **changes)
        given = frozenset({"data.image_size", "detector.weights_backbone"})
        return plan_data(config, given, None, None, lambda _: None, budget)

    return plan


def test_a_plan_holds_its_budget_and_says_what_was_measured(planned: Callable[..., dict]) -> None:
    free = planned(Budget())
    assert free["measured"] == {}
    full = planned(Budget(memory_gb=100, train_hours=100))
    costs = Costs(**full["measured"])
    between = (costs.bytes_of(2) + costs.bytes_of(4)) / 2
    assert full["config"]["training"]["accumulation"] == 1
    assert full["config"]["training"]["epochs"] == free["config"]["training"]["epochs"]
    tight = planned(Budget(memory_gb=between / 1e9))
    assert tight["config"]["training"]["accumulation"] == 2
    assert "GB with 4" in " ".join(tight["yaml"].replace("#", " ").split())


def test_what_is_too_little_is_refused(planned: Callable[..., dict]) -> None:
    with pytest.raises(ConfigError, match=r"^--memory-gb must hold a step of one image, which takes 0\.0"):
        planned(Budget(memory_gb=1e-6))
    with pytest.raises(ConfigError, match=r"^--train-hours must hold 3 epochs of 8 steps"):
        planned(Budget(train_hours=1e-9))
