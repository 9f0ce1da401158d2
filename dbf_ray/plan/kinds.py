"""Which kind of detector a name means, as far as rules differ by it, and one to look at."""

from __future__ import annotations

from typing import Any

from dbf_ray.detectors import Detector, find_detector, make_detector
from dbf_ray.detectors.fcos import RotatedFCOS
from dbf_ray.detectors.retinanet import RotatedRetinaNet
from dbf_ray.detectors.two_stage import TwoStageDetector


def assigns_as(kind: type, known: type) -> bool:
    """Whether a class of detectors assigns as ``known`` does, not by a rule of its own."""
    return issubclass(kind, known) and all(
        getattr(kind, name, None) is getattr(known, name, None) for name in ("assign", "match")
    )


def is_two_stage(name: str) -> bool:
    """Whether it has a proposal network."""
    return issubclass(find_detector(name), TwoStageDetector)


def has_oriented_anchors(name: str) -> bool:
    """Whether it assigns oriented anchors by overlap."""
    return assigns_as(find_detector(name), RotatedRetinaNet)


def has_points(name: str) -> bool:
    """Whether points stand for its objects."""
    return assigns_as(find_detector(name), RotatedFCOS)


def bare_detector(name: str, backbone: str, options: dict[str, Any], classes: int = 1) -> Detector:
    """A detector without pretrained weights and as narrow as can be: what it assigns is that of any width."""
    return make_detector(
        name, backbone=backbone, num_classes=classes, fpn_channels=8, head_convs=0, **options
    )


def strides_of(name: str, backbone: str) -> list[int]:
    """Of the levels of a detector's pyramid, pixels; [] where it does not say."""
    detector: Any = bare_detector(name, backbone, {})
    holder = getattr(detector, "anchors", detector)
    return list(getattr(holder, "strides", []))
