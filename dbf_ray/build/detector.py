"""The detector of a configuration, its own options checked."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from dbf_ray.build.frozen import (
    largest_square,
    pads_to_square,
)
from dbf_ray.config import Config, with_overrides
from dbf_ray.detectors import DETECTORS, Detector, check_options, make_detector, with_defaults
from dbf_ray.detectors.mmrotate import load_mmrotate_checkpoint
from dbf_ray.detectors.options import check_ranges
from dbf_ray.errors import ConfigError


def detector_options(config: Config) -> dict[str, Any]:
    """The detector's own options, each of the type that the detector declares.

    Raises:
        ConfigError: unknown detector or option, or a value of another type.
    """
    name, options = config.detector.name, config.detector.parameters
    check_options(name, options)
    hints = get_type_hints(DETECTORS[name].__init__)
    for option, value in options.items():
        try:
            options[option] = TypeAdapter(hints[option]).validate_python(value)
        except ValidationError as error:
            item = error.errors()[0]
            is_list = item["type"] in ("sequence_str", "is_instance_of")
            rule = "should be a list, written [a, b]" if is_list else item["msg"].removeprefix("Input ")
            raise ConfigError(f"detector.{option} of {name}: {rule}, got {value!r}; correct it") from error
    check_ranges(with_defaults(name, options))
    return options


def resolved(config: Config) -> Config:
    """``config`` with what it leaves to the detector written out, so that two can be compared."""
    detector = config.detector
    if detector.head_convs is not None or detector.name not in DETECTORS:
        return config
    return with_overrides(config, {"detector.head_convs": with_defaults(detector.name, {})["head_convs"]})


def build_detector(config: Config, classes: list[str]) -> Detector:
    """The detector with seeded random and pretrained weights; not compiled, but padding as it would be where
    ``training.compile`` is set.
    """
    detector = config.detector
    torch.manual_seed(config.seed)
    built = make_detector(
        detector.name,
        backbone=detector.backbone,
        num_classes=len(classes),
        weights_backbone=detector.weights_backbone,
        fpn_channels=detector.fpn_channels,
        head_convs=detector.head_convs,
        norm_eval=detector.norm_eval,
        frozen_stages=detector.frozen_stages,
        **detector_options(config),
    )
    if pads_to_square(config):
        built.least_pad_to = (largest_square(config), largest_square(config))
    if detector.weights_mmrotate is not None:
        placement = load_mmrotate_checkpoint(built, Path(detector.weights_mmrotate).expanduser())
        if placement.unplaced or placement.missing:
            warnings.warn(f"{detector.weights_mmrotate}: {placement}", stacklevel=2)
    return built
