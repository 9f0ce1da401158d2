"""Which kept features a training uses: those of its own images, weights and normalisation, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dbf_ray.build import build_training, prepare
from dbf_ray.config import Config
from dbf_ray.run import run, run_directory
from tests.training.frozen_runs import FLOAT32, hits_of, killed_after, write_noise


def test_features_of_other_images_of_the_same_names_are_not_used(
    narrow_run: Callable[..., Config], tmp_path: Path
) -> None:
    for seed, root in ((0, "one"), (100, "two")):
        write_noise(tmp_path / root, [(64, 64)] * 8, seed)
    common = {
        "data.name": "dota",
        "freezing.policy": "frozen",
        "data.orientation_per": "span",
        "training.epochs": 2,
    }
    cached = {**common, "freezing.cache": "disk"}
    first = narrow_run("same", **{**cached, "data.root": str(tmp_path / "one")})
    killed_after(first, 0)
    kept = len(list(run_directory(first).rglob("*.features")))
    assert kept == 8
    second = narrow_run("same", **{**cached, "data.root": str(tmp_path / "two")})
    run(second, quiet=True)
    assert hits_of(second) == [0, 8]


def test_features_for_a_detector_that_reads_others_are_not_used(narrow_run: Callable[..., Config]) -> None:
    """A two-stage detector reads a finer map than RetinaNet; the same weights and images, and a folder that a
    killed run left.
    """
    common = {
        "freezing.policy": "frozen",
        "freezing.cache": "disk",
        "data.orientation_per": "span",
        "training.epochs": 2,
    }
    first = narrow_run("same", **common)
    killed_after(first, 0)
    two_stages = {
        "detector.name": "oriented_rcnn",
        "detector.roi_channels": 16,
        "detector.rpn_samples": 16,
        "detector.roi_samples": 16,
    }
    second = narrow_run("same", **common, **two_stages)
    run(second, quiet=True)
    assert hits_of(second) == [0, 8]


def test_features_that_were_rounded_in_other_stages_are_not_used(
    narrow_run: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer version may run other stages in float32: on a disk it finds what a killed run of the older one
    left.
    """
    from dbf_ray.detectors import backbones

    common = {
        "freezing.policy": "frozen",
        "freezing.cache": "disk",
        "data.orientation_per": "span",
        "training.epochs": 2,
    }
    for float32_stages, hits in ((0, [8, 8]), (1, [0, 8])):
        config = narrow_run("same", **common, **{"freezing.engine_precision": "bf16"})
        monkeypatch.setitem(backbones.FLOAT32_STAGES, config.detector.backbone, 0)
        killed_after(config, 0)
        monkeypatch.setitem(backbones.FLOAT32_STAGES, config.detector.backbone, float32_stages)
        run(config, quiet=True)
        assert hits_of(config) == hits


def test_weights_that_move_under_a_frozen_prefix_are_seen(narrow_run: Callable[..., Config]) -> None:
    config = narrow_run("run", **{"freezing.policy": "frozen", "freezing.cache": "ram", **FLOAT32})
    training = build_training(prepare(config), quiet=True)
    frozen, detector = training.frozen, training.detector
    assert frozen is not None
    training.scheduler.before_step(0)
    batch = detector.prepare(*next(training.train_loader.epoch(0)))

    def last() -> torch.Tensor:
        found = frozen(batch).frozen
        assert found is not None
        assert found.outputs[3] is not None
        return found.outputs[3]

    first, again = last(), last()
    assert torch.equal(first, again)
    weight = next(detector.backbone.stages[0].parameters())
    old = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.5)
    moved = last()
    plain = detector.backbone.frozen_features(batch.images).outputs[3]
    assert plain is not None
    assert torch.allclose(moved, plain, atol=1e-5)
    assert not torch.allclose(moved, first, atol=1e-3)
    with torch.no_grad():
        weight.copy_(old)
    assert torch.equal(last(), first)


@pytest.mark.parametrize("engine", [True, False])
def test_features_depend_on_normalisation_and_on_what_is_no_tensor(
    narrow_run: Callable[..., Config], engine: bool
) -> None:
    """Under the same weights, in a cache on disk that a killed run left."""
    config = narrow_run(
        "run", **{"freezing.policy": "frozen", "freezing.cache": "disk", "freezing.engine": engine, **FLOAT32}
    )
    found = []
    for change in ("none", "mean", "eps", "none"):
        training = build_training(prepare(config), features=run_directory(config) / "features", quiet=True)
        assert training.frozen is not None
        training.scheduler.before_step(0)
        if change == "mean":
            training.detector.mean.mul_(0.5)
        if change == "eps":
            norm = next(
                module
                for module in training.detector.backbone.stages[0].modules()
                if isinstance(module, torch.nn.BatchNorm2d)
            )
            norm.eps = 1.0
        batch = training.detector.prepare(*next(training.train_loader.epoch(0)))
        for _ in range(2):
            features = training.frozen(batch).frozen
        assert features is not None
        assert features.outputs[3] is not None
        exact = training.detector.backbone.frozen_features(batch.images).outputs[3]
        assert exact is not None
        assert torch.allclose(features.outputs[3], exact, atol=1e-5)
        found.append(features.outputs[3])
    assert torch.equal(found[0], found[3])
    assert all(not torch.allclose(other, found[0], atol=1e-4) for other in found[1:3])
