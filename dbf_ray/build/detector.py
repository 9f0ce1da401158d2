"""The detector of a configuration, its own options checked."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from dbf_ray.build.stored import begin_with
from dbf_ray.config import Config, DetectorConfig, at, with_overrides
from dbf_ray.detectors import Detector, check_options, find_detector, make_detector, with_defaults
from dbf_ray.detectors.mmrotate import load_mmrotate_checkpoint
from dbf_ray.detectors.options import check_ranges
from dbf_ray.errors import ConfigError


@at("detector")
def detector_options(detector: DetectorConfig) -> dict[str, Any]:
    """The detector's own options, each of the type that the detector declares.

    Raises:
        ConfigError: unknown detector or option, or a value of another type.
    """
    name, options = detector.name, detector.parameters
    check_options(name, options)
    hints = get_type_hints(find_detector(name).__init__)
    for option, value in options.items():
        try:
            options[option] = TypeAdapter(hints[option]).validate_python(value)
        except ValidationError as error:
            item = error.errors()[0]
            is_list = item["type"] in ("sequence_str", "is_instance_of")
            rule = "should be a list, written [a, b]" if is_list else item["msg"].removeprefix("Input ")
            raise ConfigError(f"`{option}` of {name}: {rule}, got {value!r}; correct it") from error
    check_ranges(with_defaults(name, options))
    return options


def resolved(config: Config) -> Config:
    """``config`` with what it leaves to the detector written out, so that two can be compared."""
    detector = config.detector
    if detector.head_convs is not None:
        return config
    own = with_defaults(detector.name, {})["head_convs"]
    return with_overrides(config, {"detector.head_convs": own})


@at("detector")
def build_detector(
    detector: DetectorConfig,
    options: dict[str, Any],
    classes: list[str],
    *,
    seed: int,
    least_pad_to: tuple[int, int] = (0, 0),
    pretrained: bool = True,
) -> Detector:
    """The detector with seeded random and pretrained weights; not compiled.

    Args:
        detector: which.
        options: its own, as :func:`detector_options` gives them.
        classes: names in label order.
        seed: of the random weights.
        least_pad_to: (height, width) that images are padded to at least.
        pretrained: False: random weights alone, since others are loaded into it.
    """
    torch.manual_seed(seed)
    begun = detector.weights_checkpoint if pretrained else None
    built = make_detector(
        detector.name,
        backbone=detector.backbone,
        num_classes=len(classes),
        weights_backbone=detector.weights_backbone if pretrained and begun is None else None,
        fpn_channels=detector.fpn_channels,
        head_convs=detector.head_convs,
        norm_eval=detector.norm_eval,
        frozen_stages=detector.frozen_stages,
        **options,
    )
    built.least_pad_to = least_pad_to
    if begun is not None:
        kind = f"{detector.name} on {detector.backbone}"
        begin_with(built, Path(begun).expanduser(), classes, kind)
    elif pretrained and detector.weights_mmrotate is not None:
        placement = load_mmrotate_checkpoint(built, Path(detector.weights_mmrotate).expanduser())
        if placement.unplaced or placement.missing:
            warnings.warn(f"{detector.weights_mmrotate}: {placement}", stacklevel=2)
    return built
