"""Evaluation of a checkpoint on a data set, without training."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dbf_ray.build.data import build_eval_loader, choose_device, feeding, make_split
from dbf_ray.build.detector import build_detector, detector_options
from dbf_ray.build.frozen import frozen_settings
from dbf_ray.build.images import image_settings
from dbf_ray.build.stored import fit_weights, stored_config, stored_weights
from dbf_ray.config import Config, at, with_overrides
from dbf_ray.data import Dataset, class_names, originals_of
from dbf_ray.data.contents import why_nothing_counts
from dbf_ray.detectors import Detector
from dbf_ray.detectors.mmrotate import load_mmrotate_state_dict, read_mmrotate_checkpoint
from dbf_ray.errors import ConfigError, WeightsError
from dbf_ray.training.checkpoint import load_checkpoint
from dbf_ray.training.loop import evaluate


def config_of(checkpoint: Path, root: Path | None = None) -> Config:
    """The configuration that a checkpoint was trained with, for any device, and with another data folder if
    ``root`` is given.

    Raises:
        WeightsError: the checkpoint cannot be read, or this version does not understand its configuration.
    """
    config = stored_config(checkpoint)
    changes: dict[str, Any] = {"training.device": "auto"}
    if root is not None:
        changes["data.root"] = str(root)
        # trained on generated scenes: the folder is in the format that data.root means
        if config.data.name == "synthetic":
            changes["data.name"] = "dota"
    return with_overrides(config, changes)


def load_detector(checkpoint: Path, config: Config) -> tuple[Detector, list[str]]:
    """The trained detector of a checkpoint folder, on its device and in eval mode, and its classes.

    Raises:
        WeightsError: the checkpoint cannot be read, or its weights do not fit the configured detector.
    """
    device = choose_device(config.training.device)
    state, record = load_checkpoint(checkpoint, device)
    classes, weights = stored_weights(state, record, checkpoint)
    detector = _untrained(config, classes).to(device)
    kind = f"{config.detector.name} on {config.detector.backbone}"
    fit_weights(detector, weights, checkpoint, kind, "give a checkpoint together with its own configuration")
    return _in_layout(detector, config).eval(), classes


def metrics_of(
    checkpoint: Path,
    config: Config,
    split: str = "val",
    told: Callable[[Dataset], None] = lambda dataset: None,
) -> dict[str, float]:
    """Metrics of a checkpoint folder on ``split`` of ``config``'s data set, as
    :func:`dbf_ray.training.loop.evaluate` gives them; ``told`` gets that data set.
    """
    detector, classes = load_detector(checkpoint, config)
    return _evaluate(detector, config, split, classes, told)


@at("data")
def evaluate_mmrotate(
    file: Path,
    config: Config,
    split: str = "val",
    told: Callable[[Dataset], None] = lambda dataset: None,
) -> dict[str, float]:
    """Metrics of a MMRotate checkpoint in the detector that ``config`` describes; its classes are
    ``data.classes``, or those the file names. ``told`` gets the data set.

    Raises:
        WeightsError: the file cannot be read, does not hold every weight of the detector, or has a weight too
            many.
        ConfigError: nobody says what the classes are.
    """
    state, named = read_mmrotate_checkpoint(file)
    classes = named if config.data.classes is None else class_names(config.data.classes)
    if not classes:
        raise ConfigError(
            f"classes must be known in the order of the checkpoint, {file} does not name them; give "
            "data.classes"
        )
    detector = _untrained(config, classes)
    placement = load_mmrotate_state_dict(detector, state)
    if placement.unplaced or placement.missing:
        raise WeightsError(
            f"a MMRotate checkpoint must hold just the weights of {config.detector.name} on "
            f"{config.detector.backbone} with {len(classes)} classes, {file} does not: {placement}; choose "
            "detector, backbone and classes as it was trained"
        )
    detector = detector.to(choose_device(config.training.device))
    return _evaluate(_in_layout(detector, config).eval(), config, split, classes, told)


def _evaluate(
    detector: Detector,
    config: Config,
    split: str,
    classes: list[str],
    told: Callable[[Dataset], None] = lambda dataset: None,
) -> dict[str, float]:
    dataset = make_split(config.data, split, classes)
    told(dataset)
    if reason := why_nothing_counts(dataset):
        warnings.warn(
            f"map50 is none, since in {config.data.root or config.data.name} ({split}) {reason}", stacklevel=3
        )
    feed = feeding(config.data, config.evaluation.batch_size, detector.mean.device)
    return evaluate(
        detector,
        build_eval_loader(dataset, config.data.image_size, feed),
        classes,
        config.training.precision,
        originals_of(dataset),
    )


def _in_layout(detector: Detector, config: Config) -> Detector:
    """In the memory format of a training, so that it rounds as there."""
    return detector.to(memory_format=torch.channels_last) if config.training.channels_last else detector


def _untrained(config: Config, classes: list[str]) -> Detector:
    """The detector of a configuration, with random weights."""
    compiled = config.training.compile or frozen_settings(config.freezing, config.training).compiled
    options = detector_options(config.detector)
    pad_to = image_settings(config.data, compiled).least_pad_to
    return build_detector(
        config.detector, options, classes, seed=config.seed, least_pad_to=pad_to, pretrained=False
    )
