"""Anchors of a proposal network: the reference's, unless they leave too many objects out."""

from __future__ import annotations

import itertools
from typing import Any

from dbf_ray.config import Config
from dbf_ray.detectors import with_defaults
from dbf_ray.plan.choices import Choice, Facts
from dbf_ray.plan.coverage import coverage
from dbf_ray.plan.kinds import bare_detector, is_two_stage
from dbf_ray.plan.objects import drawn_counted, scaled
from dbf_ray.plan.rules.anchors import ENOUGH, MOST, MOST_OBJECTS

SCALES = ((8.0,), (4.0,), (2.0,), (16.0,), (4.0, 8.0), (2.0, 4.0), (2.0, 4.0, 8.0))
RATIOS = ((2.0, 1.0, 0.5), (4.0, 2.0, 1.0, 0.5, 0.25))
"""An object's upright box is matched: longer ones than these are rare."""


def rule(facts: Facts, config: Config) -> list[Choice]:
    """``detector.anchor_scales`` and ``anchor_ratios`` of two stages, if those of the reference leave more
    than 5 % of the objects out: the smallest set that does not, else the one that leaves fewest.
    """
    if not is_two_stage(config.detector.name):
        return []
    usual = with_defaults(config.detector.name, {})
    usual = {key: list(usual[key]) for key in ("anchor_scales", "anchor_ratios")}
    before = best = _covered(facts, config, usual)
    chosen = usual
    sets = sorted(itertools.product(SCALES, RATIOS), key=lambda pair: len(pair[0]) * len(pair[1]))
    for scales, ratios in sets:
        if best >= ENOUGH or len(scales) * len(ratios) > MOST:
            break
        options = {"anchor_scales": list(scales), "anchor_ratios": list(ratios)}
        covered = _covered(facts, config, options)
        if covered > best:
            best, chosen = covered, options
    if chosen == usual:
        return []
    why = f"{best:.1%} of the objects have an anchor, {before:.1%} with the reference's"
    return [
        Choice(f"detector.{key}", value, "" if number else why, "anchors of proposals")
        for number, (key, value) in enumerate(chosen.items())
    ]


def _covered(facts: Facts, config: Config, options: dict[str, Any]) -> float:
    shown = scaled(facts.objects, config.data.image_size)
    detector = bare_detector(config.detector.name, config.detector.backbone, options)
    found = coverage(detector, [shown], drawn_counted(shown, MOST_OBJECTS))
    assert found is not None
    return found.share()
