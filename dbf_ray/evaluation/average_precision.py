"""Average precision of oriented detections by the rules of PASCAL VOC and of the DOTA development kit.

Detections of a class are taken over all images, best score first. One is a true positive if the object it
overlaps most reaches the IoU threshold and was not claimed before, and a false positive otherwise; if that
object is difficult, the detection counts as neither. With recall = true positives / objects that are not
difficult, and precision = true positives / (true + false positives), AP is

- ``voc12``: the area under the precision made non-increasing from the right (Everingham and Winn, VOC2012
  development kit);
- ``voc07``: the mean of the largest precision at recall >= 0, 0.1, ..., 1.0 (Everingham et al., "The PASCAL
  Visual Object Classes Challenge", IJCV 2010, section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dbf_ray.errors import ConfigError
from dbf_ray.evaluation.matching import ROUNDING, ClassMatches, match_classes

METHODS = ("voc12", "voc07")


def average_precision(
    detections: Sequence[Mapping[str, Any]],
    ground_truth: Sequence[Mapping[str, Any]],
    iou_threshold: float = 0.5,
    method: str = "voc12",
) -> tuple[dict[int, float], float]:
    """Average precision of each class, and its mean over classes, as fractions in [0, 1].

    Args:
        detections: per image boxes [n, 5] (cx, cy, w, h, angle in degrees counter-clockwise), scores [n],
            labels [n].
        ground_truth: per image, in the same order, boxes [m, 5], labels [m] and difficult [m] (all false if
            absent).
        iou_threshold: a detection matches from this IoU on, in (0, 1].
        method: ``voc12`` (area) or ``voc07`` (eleven points).

    Returns:
        AP by label of all classes with objects that are not difficult (others are left out), and their mean;
        NaN if there is no such class.

    Raises:
        ConfigError: threshold or method is not usable.
        DataError: detections and ground truth do not fit each other.
    """
    check(iou_threshold, method)
    per_class = {
        label: class_ap(matches, iou_threshold, method)
        for label, matches in match_classes(detections, ground_truth).items()
    }
    return per_class, mean(list(per_class.values()))


def class_ap(matches: ClassMatches, iou_threshold: float, method: str) -> float:
    """Average precision of one class at one IoU threshold."""
    return (
        area(*curve(matches, iou_threshold))
        if method == "voc12"
        else eleven_points(*curve(matches, iou_threshold))
    )


def curve(matches: ClassMatches, iou_threshold: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall [k] and precision [k] after each detection that counts (those on difficult objects do not), best
    score first.
    """
    hit = matches.iou >= iou_threshold - ROUNDING
    counts = ~(hit & matches.difficult)
    first = np.zeros(len(hit), dtype=bool)
    candidates = np.flatnonzero(hit & counts)
    first[candidates[np.unique(matches.claimed[candidates], return_index=True)[1]]] = True
    true_positives = np.cumsum(first[counts], dtype=np.float64)
    return true_positives / matches.objects, true_positives / np.arange(1, len(true_positives) + 1)


def area(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Area under the precision made non-increasing from the right (VOC2012)."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def eleven_points(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Mean over recall levels 0, 0.1, ..., 1 of the largest precision at that recall or more (VOC2007).

    The levels are multiples of 0.1 in float64, as in the development kits: a recall of exactly 3/10 does not
    reach 3 * 0.1.
    """
    levels = np.arange(11) * 0.1
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(np.mean(envelope[np.searchsorted(recall, levels, side="left")]))


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def check(iou_threshold: float, method: str) -> None:
    """Refuse an IoU threshold outside (0, 1] and an unknown method."""
    if not 0 < iou_threshold <= 1:
        raise ConfigError(f"iou_threshold must be in (0, 1], got {iou_threshold!r}; 0.5 is usual")
    if method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
