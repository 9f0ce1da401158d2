"""Oriented detectors. A detector is one file and one row in :data:`DETECTORS`; a backbone one row in
:mod:`.backbones`.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Literal

from dbf_ray.detectors.backbones import BACKBONES, StagedBackbone, make_backbone
from dbf_ray.detectors.base import Batch, Detector, padded_size
from dbf_ray.detectors.fcos import RotatedFCOS
from dbf_ray.detectors.options import check_ranges
from dbf_ray.detectors.retinanet import RotatedRetinaNet
from dbf_ray.detectors.two_stage import OrientedRCNN, RotatedFasterRCNN
from dbf_ray.errors import ConfigError
from dbf_ray.members import find_member, subclass_of

DETECTORS: dict[str, type[Detector]] = {
    "rotated_retinanet": RotatedRetinaNet,
    "rotated_fcos": RotatedFCOS,
    "rotated_faster_rcnn": RotatedFasterRCNN,
    "oriented_rcnn": OrientedRCNN,
}
SHARED_OPTIONS = ("fpn_channels", "head_convs")


def make_detector(
    name: str = "rotated_retinanet",
    *,
    backbone: str = "resnet50",
    num_classes: int,
    weights_backbone: str | Path | None = None,
    fpn_channels: int = 256,
    head_convs: int | None = None,
    norm_eval: bool | Literal["sync"] = True,
    frozen_stages: int = 0,
    **options: Any,
) -> Detector:
    """Build a detector by name.

    Args:
        name: a key of :data:`DETECTORS`, or a dotted path.
        backbone: a key of :data:`dbf_ray.detectors.backbones.BACKBONES`, or a dotted path.
        num_classes: C >= 1; labels are 0..C-1.
        weights_backbone: see :func:`dbf_ray.detectors.backbones.make_backbone`.
        fpn_channels: width of pyramid and head.
        head_convs: 3 x 3 convolutions in each branch of the dense head; None: the detector's own number (4;
            in two-stage detectors 1).
        norm_eval: batch norms of the backbone always in eval mode (True), trained (False) or synchronised
            ("sync").
        frozen_stages: leading backbone stages that are never trained.
        **options: the detector's own options, such as ``anchor_angles``.

    Raises:
        ConfigError: unknown detector, backbone or option, or a value out of range.
        WeightsError: weights that are missing or do not fit.
    """
    check_options(name, options)
    check_ranges(with_defaults(name, options))
    if num_classes < 1:
        raise ConfigError(f"num_classes must be >= 1, got {num_classes}; name at least one class")
    staged = make_backbone(backbone, weights_backbone, norm_eval=norm_eval, always_frozen=frozen_stages)
    if head_convs is not None:
        options["head_convs"] = head_convs
    factory: Any = find_detector(name)
    detector: Detector = factory(staged, num_classes, fpn_channels=fpn_channels, **options)
    return detector


def find_detector(name: str) -> type[Detector]:
    """The class of a detector: a key of :data:`DETECTORS`, or a dotted path ``package.module:MyDetector``.

    Raises:
        ConfigError: there is no such detector, or its constructor lacks what all have.
    """
    rule = "a class derived from dbf_ray.detectors.Detector"
    found: type[Detector] = find_member("detector", name, DETECTORS, rule, subclass_of(Detector))
    parameters = inspect.signature(found.__init__).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty]
    if lacking := [option for option in SHARED_OPTIONS if option not in known]:
        raise ConfigError(
            f"the constructor of detector {name!r} must take {' and '.join(SHARED_OPTIONS)} as keywords "
            f"(after a *) with defaults, it does not take {' and '.join(lacking)} so; add what lacks"
        )
    return found


def check_options(name: str, options: dict[str, Any]) -> None:
    """Refuse an unknown detector or an option that it does not have."""
    known = own_options(name)
    for option in options:
        if option not in known:
            raise ConfigError(f"unknown option `{option}` of {name}; known: {', '.join(known)}")


def own_options(name: str) -> list[str]:
    """Names of a detector's own options."""
    parameters = inspect.signature(find_detector(name).__init__).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in SHARED_OPTIONS]


def with_defaults(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """All options of a detector: those given, and its own defaults for the others (``head_convs`` among
    them).
    """
    parameters = inspect.signature(find_detector(name).__init__).parameters.values()
    return {p.name: options.get(p.name, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


__all__ = [
    "BACKBONES",
    "DETECTORS",
    "Batch",
    "Detector",
    "StagedBackbone",
    "check_options",
    "find_detector",
    "make_backbone",
    "make_detector",
    "own_options",
    "padded_size",
    "with_defaults",
]
