"""Frozen stages in bf16 against those in float32: real weights, the same seed, map50 within .01.

Told by whole trainings of which chance moves the figure less than that, which is asserted beside them: a
cross-validation of all real images that there are, in four orientations, and generated scenes. Where chance
fails, as it may on another machine or seed, they cannot tell. And by one detector of real images, trained in
float32: how good it is on features of either precision, where it would be moved by a step on them, and how
good it becomes in a frozen span of the same training on either.

Of one pair of trainings on the 554 training images, judged by the 175 of validation, .01 is asserted all the
same. The engine in bf16 misses it with seed 0 (-.0208) and with four seeds of eight; so does float32 against
itself. benchmarks/low_precision.py has these over many seeds, and docs/results.md.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.low_precision import EXACT, ORIENTATIONS, command, map50_of, of_way
from dbf_ray.build.data import build_eval_loader, feeding, make_split
from dbf_ray.config import Config, load_config, with_overrides
from dbf_ray.data import TrainView
from dbf_ray.data.transforms import flip
from dbf_ray.detectors import Detector
from dbf_ray.detectors.backbones import FrozenFeatures, StagedBackbone
from dbf_ray.detectors.backbones.engine import PrefixEngine
from dbf_ray.evaluate import load_detector
from dbf_ray.evaluation import Evaluator
from dbf_ray.freezing import Freezer
from dbf_ray.run import run, run_directory
from dbf_ray.training.checkpoint import list_checkpoints

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
DATA, WEIGHTS = SHARED / "data" / "hrsc2016", SHARED / "weights" / "mobilenet_v2_features_torchvision.pth"
RECIPES = ROOT / "jobs" / "configs"
SHIPS = RECIPES / "hrsc_mobilenet_v2.yaml"
SCENES = {
    "data.selection_fraction": "0",
    "data.train_images": "1000",
    "data.val_images": "1200",
    "data.image_size": "256",
    "training.epochs": "12",
}
LIMIT = 0.01
SETTINGS = {
    **{
        "data.root": str(DATA),
        "detector.weights_backbone": str(WEIGHTS),
        "data.image_size": 256,
        "data.pad_to": "square",
    },
    **{
        "data.orientation_per": "span",
        "freezing.policy": "frozen",
        "freezing.cache": "ram",
        "freezing.cache_dtype": "float32",
    },
    **{
        "training.precision": "float32",
        "training.epochs": 12,
        "evaluation.every": 4,
        "tracking.mlflow": False,
    },
}
CHANCE = "float32, no engine"
WHOLE = ["engine in bf16", "kept in bf16"]
HELD = ["engine in float32", "engine in bf16", "cached in bf16", "cached in float16"]
SPAN = 4  # the last epochs of these
SPANS = {
    "engine in float32": {},
    "stages": {"freezing.engine": False},
    "engine in bf16": {"freezing.engine_precision": "bf16"},
    "cached in bf16": {"freezing.cache_dtype": "bf16"},
}
Compute = Callable[[torch.Tensor], FrozenFeatures]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*has to emulate")]


def train(
    recipe: Path, settings: dict[str, str], seeds: int, ways: list[str], *options: str
) -> list[dict[str, Any]]:
    """Rows of map50 after the whole training in each way. One thread each, so that a machine always gives the
    same.
    """
    fixed = [part for key, value in settings.items() for part in (f"--{key}", value)]
    processes = str(min(4, os.cpu_count() or 1))  # of some gigabytes each
    rows = command(
        [
            "--config",
            str(recipe),
            *fixed,
            "--seeds",
            str(seeds),
            "--only",
            *ways,
            "--processes",
            processes,
            *options,
        ]
    )["rows"]
    print(rows)
    return list(rows)


@pytest.fixture(scope="module")
def of_scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, float]]:
    """map50 after whole trainings of generated scenes, with as many of them as it takes for chance to be less
    than what is to be told.
    """
    if not WEIGHTS.is_file():
        pytest.skip(f"needs real weights, {WEIGHTS} is not there")
    fixed = {"detector.weights_backbone": str(WEIGHTS), "runs_dir": str(tmp_path_factory.mktemp("runs"))}
    rows = train(RECIPES / "demo.yaml", {**SCENES, **fixed}, 2, [CHANCE, *WHOLE])
    return {seed: {row["way"]: row["map50"] for row in rows if row["seed"] == seed} for seed in range(2)}


def test_two_trainings_of_scenes_in_float32_end_alike(of_scenes: dict[int, dict[str, float]]) -> None:
    """Or the next could not tell anything."""
    for map50 in of_scenes.values():
        assert map50[CHANCE] != map50[EXACT]  # sums in another order
        assert abs(map50[CHANCE] - map50[EXACT]) <= LIMIT / 2, of_scenes


@pytest.mark.parametrize("way", WHOLE)
def test_frozen_trainings_of_scenes_end_where_those_in_float32_do(
    way: str, of_scenes: dict[int, dict[str, float]]
) -> None:
    for map50 in of_scenes.values():
        assert map50[EXACT] > 0.8  # it did learn
        assert map50[way] != map50[EXACT]  # and the other is not the same training
        assert abs(map50[way] - map50[EXACT]) <= LIMIT, of_scenes


def on_real_images(runs: Path) -> dict[str, str]:
    """Settings of whole trainings of real images; the test is skipped where there are none."""
    if not (DATA.is_dir() and WEIGHTS.is_file()):
        pytest.skip(f"needs real images and weights in {SHARED}, they are not there")
    return {
        "data.root": str(DATA),
        "detector.weights_backbone": str(WEIGHTS),
        "data.pad_to": "square",
        "runs_dir": str(runs),
    }


@pytest.fixture(scope="module")
def of_folds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """map50 of a cross-validation of all real images with the recipe that is shipped: four trainings in each
    way, each evaluated, in four orientations, on the quarter that it was not trained on. The mean of four is
    expected to be moved half as far by chance as one of them; how far it was is asserted.
    """
    settings = {**on_real_images(tmp_path_factory.mktemp("runs")), "data.train_split": "train+val"}
    rows = train(SHIPS, settings, 1, [CHANCE, *WHOLE], "--folds", "4", "--orientations")
    assert len(rows) == 4 * len((EXACT, CHANCE, *WHOLE))
    return {
        way: statistics.fmean(row["orientations"] for row in rows if row["way"] == way)
        for way in (EXACT, CHANCE, *WHOLE)
    }


def test_two_cross_validations_of_real_images_in_float32_end_alike(of_folds: dict[str, float]) -> None:
    """Or the next could not tell anything."""
    assert of_folds[CHANCE] != of_folds[EXACT]  # sums in another order
    assert abs(of_folds[CHANCE] - of_folds[EXACT]) <= LIMIT / 2, of_folds


@pytest.mark.parametrize("way", WHOLE)
def test_frozen_trainings_of_real_images_end_where_those_in_float32_do(
    way: str, of_folds: dict[str, float]
) -> None:
    assert of_folds[EXACT] > 0.3  # it did learn
    assert of_folds[way] != of_folds[EXACT]  # and the other is not the same training
    assert abs(of_folds[way] - of_folds[EXACT]) <= LIMIT, of_folds


@pytest.fixture(scope="module")
def of_real_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict[str, float]]:
    """The configuration of a whole training of real images in float32, with the recipe that is shipped, and
    map50 after it in each way.
    """
    settings = on_real_images(tmp_path_factory.mktemp("runs"))
    return of_way(load_config(SHIPS, settings), EXACT, 0), {
        row["way"]: row["map50"] for row in train(SHIPS, settings, 1, WHOLE)
    }


@pytest.mark.parametrize("way", WHOLE)
def test_a_frozen_training_of_real_images_ends_where_that_in_float32_does(
    way: str, of_real_images: tuple[Config, dict[str, float]]
) -> None:
    """The engine's in bf16 is missed with this seed, by .0208: docs/results.md, Low precision, has eight and
    what chance does.
    """
    _, map50 = of_real_images
    assert map50[EXACT] > 0.3  # it did learn
    assert map50[way] != map50[EXACT]  # and the other is not the same training
    assert abs(map50[way] - map50[EXACT]) <= LIMIT, map50


def test_a_detector_of_a_whole_training_is_as_good_on_features_in_bf16(
    of_real_images: tuple[Config, dict[str, float]],
) -> None:
    config, map50 = of_real_images
    assert map50[EXACT] > 0.3  # it did learn
    detector, classes = load_detector(list_checkpoints(run_directory(config) / "checkpoints")[-1], config)
    Freezer(detector.backbone).apply(detector.backbone.num_stages)
    scores = {
        name: plain for name, (plain, _) in scores_of(config, detector, classes, ORIENTATIONS[:1]).items()
    }
    # the training's evaluation runs whole batches, which rounds otherwise
    assert scores["stages"] == pytest.approx(map50[EXACT], abs=1e-3)
    assert {way: scores[way] for way in HELD if abs(scores[way] - scores["stages"]) > LIMIT} == {}, scores


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Detector, list[str], float]:
    """A detector whose head was trained in float32 on the frozen backbone, but for a last span; its
    configuration, its classes and its map50.
    """
    if not (DATA.is_dir() and WEIGHTS.is_file()):
        pytest.skip(f"needs real images and weights in {SHARED}, they are not there")
    fixed = {"runs_dir": str(tmp_path_factory.mktemp("runs")), "training.threads": torch.get_num_threads()}
    config = load_config(SHIPS, {**SETTINGS, **fixed})
    score = run(
        config, quiet=True, on_epoch=lambda record, _: record["epoch"] + 1 < config.training.epochs - SPAN
    )["map50"]
    detector, classes = load_detector(list_checkpoints(run_directory(config) / "checkpoints")[-1], config)
    Freezer(detector.backbone).apply(detector.backbone.num_stages)
    return config, detector, classes, score


def ways_of(backbone: StagedBackbone) -> dict[str, Compute]:
    def rounded(dtype: torch.dtype) -> Compute:
        return lambda images: backbone.frozen_features(images).map(lambda part: part.to(dtype).float())

    def autocast(images: torch.Tensor) -> FrozenFeatures:
        with torch.autocast("cpu", torch.bfloat16):
            return backbone.frozen_features(images).map(lambda part: part.float())

    return {
        "stages": backbone.frozen_features,
        "stages under autocast": autocast,
        "engine in float32": PrefixEngine(backbone),
        "engine in bf16": PrefixEngine(backbone, torch.bfloat16),
        "cached in bf16": rounded(torch.bfloat16),
        "cached in float16": rounded(torch.float16),
    }


def loader_of(config: Config, classes: list[str]) -> Any:
    """The validation images in batches."""
    feed = feeding(config.data, config.evaluation.batch_size, torch.device("cpu"))
    return build_eval_loader(make_split(config.data, "val", classes), config.data.image_size, feed)


def scores_of(
    config: Config, detector: Detector, classes: list[str], orientations: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """For each way map50 of the validation images as they are, and of these in the orientations."""
    ways = ways_of(detector.backbone)
    evaluators = {name: (Evaluator(len(classes), classes), Evaluator(len(classes), classes)) for name in ways}
    detector.eval()
    with torch.no_grad():
        for images, targets in loader_of(config, classes):
            for orientation in orientations:
                shown = [
                    flip(image, target, orientation) for image, target in zip(images, targets, strict=True)
                ]
                named = [{**target, "image_id": f"{orientation} {target['image_id']}"} for _, target in shown]
                batch = detector.prepare([image for image, _ in shown])
                for name, way in ways.items():
                    found = detector(replace(batch, frozen=way(batch.images)))
                    plain, viewed = evaluators[name]
                    viewed.update(found, named)
                    if orientation == "identity":
                        plain.update(found, named)
    computed = {
        name: (alone.compute()["map50"], all_orientations.compute()["map50"])
        for name, (alone, all_orientations) in evaluators.items()
    }
    print(computed)
    return computed


@pytest.fixture(scope="module")
def scores(trained: tuple[Config, Detector, list[str], float]) -> dict[str, tuple[float, float]]:
    """Of the detector that was trained in part."""
    config, detector, classes, _ = trained
    return scores_of(config, detector, classes, ORIENTATIONS)


@pytest.mark.parametrize("way", HELD)
def test_map50_is_that_of_float32(
    way: str, trained: tuple[Config, Detector, list[str], float], scores: dict[str, tuple[float, float]]
) -> None:
    score = trained[3]
    # the training's evaluation runs whole batches, which rounds otherwise
    assert scores["stages"][0] == pytest.approx(score, abs=1e-3)
    assert score > 0.1  # it did learn
    assert abs(scores[way][0] - scores["stages"][0]) <= LIMIT, scores


@pytest.mark.parametrize("way", HELD)
def test_map50_over_four_orientations_is_that_of_float32(
    way: str, scores: dict[str, tuple[float, float]]
) -> None:
    """Where chance is less than on the validation images alone."""
    assert abs(scores[way][1] - scores["stages"][1]) <= LIMIT, scores


def test_gradients_are_nearer_to_those_of_float32_than_those_under_autocast(
    trained: tuple[Config, Detector, list[str], float],
) -> None:
    """Of the trained part, over 32 training images. What bf16 is known for, a network under autocast, is what
    the engine in bf16 is compared with.
    """
    config, detector, classes, _ = trained
    view = TrainView(make_split(config.data, "train", classes), config.data.image_size)
    samples = [view[0, index] for index in range(0, 32 * 17, 17)]

    def gradient(way: Compute) -> torch.Tensor:
        detector.train()
        detector.zero_grad(set_to_none=True)
        for start in range(0, len(samples), 4):
            images, targets = zip(*samples[start : start + 4], strict=True)
            batch = detector.prepare(images, targets)
            losses = detector(replace(batch, frozen=way(batch.images)))
            assert isinstance(losses, dict)
            torch.stack(list(losses.values())).sum().backward()
        return torch.cat([p.grad.flatten() for p in detector.parameters() if p.grad is not None])

    ways = ways_of(detector.backbone)
    exact = gradient(ways["stages"])
    off = {name: float((gradient(way) - exact).norm() / exact.norm()) for name, way in ways.items()}
    print(off)
    assert off["engine in float32"] < 1e-3
    assert off["cached in float16"] < off["cached in bf16"] < 0.1
    assert off["engine in bf16"] < 0.55 * off["stages under autocast"]  # with bf16 in all stages .58


def test_a_frozen_span_ends_where_that_in_float32_does(
    trained: tuple[Config, Detector, list[str], float],
) -> None:
    """Of one training, from one checkpoint on. By map50 of the validation images, and of more images, among
    which two in float32 can be compared.
    """
    config, _, classes, score = trained
    start = list_checkpoints(run_directory(config) / "checkpoints")[-1]
    scores = {}
    for name, way in SPANS.items():
        span = with_overrides(config, {**way, "name": name})
        assert run(span, quiet=True, resume=start)["epochs"] == config.training.epochs
        scores[name] = map50_of(
            load_detector(list_checkpoints(run_directory(span) / "checkpoints")[-1], span)[0], classes, span
        )
    print(score, scores)
    wide = {name: found["wide"] for name, found in scores.items()}
    # these are not the same training
    assert wide["engine in float32"] != wide["engine in bf16"] != wide["cached in bf16"]
    assert max(wide.values()) - min(wide.values()) <= LIMIT, scores
    for name in ("engine in bf16", "cached in bf16"):
        assert abs(scores[name]["map50"] - scores["engine in float32"]["map50"]) <= LIMIT, scores
