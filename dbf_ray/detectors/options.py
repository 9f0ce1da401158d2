"""Ranges of the detectors' options, one row each, so that a slip is refused before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbf_ray.errors import ConfigError

SHARE, COUNT, POSITIVE, NOT_NEGATIVE = (0.0, 1.0), (1, None), (1e-12, None), (0.0, None)
RANGES: dict[str, tuple[float, float | None]] = {
    **dict.fromkeys(("positive_iou", "negative_iou", "score_threshold", "nms_threshold"), SHARE),
    **dict.fromkeys(("rpn_positive_iou", "rpn_negative_iou", "rpn_nms_threshold", "roi_positive_iou"), SHARE),
    **dict.fromkeys(("rpn_positive_fraction", "roi_positive_fraction"), SHARE),
    **dict.fromkeys(
        ("topk_candidates", "detections_per_image", "rpn_candidates", "proposals", "roi_channels"), COUNT
    ),
    **dict.fromkeys(("rpn_samples", "roi_samples"), (2, None)),
    "center_radius": POSITIVE,
    "loss_beta": NOT_NEGATIVE,
}
ORDERED = (("negative_iou", "positive_iou"), ("rpn_negative_iou", "rpn_positive_iou"))


def check_ranges(options: Mapping[str, Any]) -> None:
    """Refuse numbers outside of an option's range; None, where an option takes it, is fine.

    Raises:
        ConfigError: naming the option, the rule and the value.
    """
    for option, value in options.items():
        low, high = RANGES.get(option, (None, None))
        if low is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not value >= low or (high is not None and value > high):
            rule = (
                f"in {low:g}..{high:g}"
                if high is not None
                else "above 0"
                if low == POSITIVE[0]
                else f">= {low:g}"
            )
            raise ConfigError(f"`{option}` must be {rule}, got {value!r}; correct it")
    for low_option, high_option in ORDERED:
        if low_option in options and high_option in options and options[low_option] > options[high_option]:
            raise ConfigError(
                f"`{low_option}` must not be above `{high_option}`, got {options[low_option]!r} and "
                f"{options[high_option]!r}; lower one or raise the other"
            )
