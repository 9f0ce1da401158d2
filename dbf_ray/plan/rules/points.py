"""Points instead of anchors: when, and which level is for which size."""

from __future__ import annotations

from dbf_ray.config import Config
from dbf_ray.detectors import with_defaults
from dbf_ray.plan.choices import Choice, Facts
from dbf_ray.plan.coverage import FEW_POINTS, Coverage, coverage
from dbf_ray.plan.kinds import bare_detector, has_oriented_anchors, has_points
from dbf_ray.plan.objects import drawn_counted, scaled
from dbf_ray.plan.rules.anchors import MOST_OBJECTS, anchors_for

TOO_FEW = 0.9  # of the objects, covered by 16 anchors a cell
ROUNDING = 1e-6  # of a share
FACTORS = (0.5, 0.707, 1.0, 1.414, 2.0)  # of the limits between levels


def detector_rule(facts: Facts, config: Config) -> list[Choice]:
    """``detector.name``: rotated FCOS where 16 anchors a cell cover less than 90 % and it covers more."""
    if not has_oriented_anchors(config.detector.name):
        return []
    anchors, _ = anchors_for(facts, config)
    if anchors.covered >= TOO_FEW:
        return []
    covered = _covered(facts, config, {}).share()
    if covered <= anchors.covered + ROUNDING:
        return []
    why = f"16 anchors a cell cover {anchors.covered:.1%} of the objects, points {covered:.1%}"
    return [Choice("detector.name", "rotated_fcos", why, "detector")]


def rule(facts: Facts, config: Config) -> list[Choice]:
    """``detector.regress_limits``, if others leave fewer objects with fewer than 3 points."""
    if not has_points(config.detector.name):
        return []
    usual = list(with_defaults("rotated_fcos", {})["regress_limits"])
    few = {}
    for factor in FACTORS:
        limits = [round(limit * factor, 1) for limit in usual]
        few[factor] = 1 - _covered(facts, config, {"regress_limits": limits}).share_of(FEW_POINTS)
    best = min(FACTORS, key=lambda factor: (few[factor], abs(factor - 1)))
    if few[best] >= few[1.0]:
        return []
    why = f"{few[best]:.1%} of the objects have fewer than 3 points, {few[1.0]:.1%} with {usual}"
    limits = [round(limit * best, 1) for limit in usual]
    return [Choice("detector.regress_limits", limits, why, "FCOS's limits")]


def _covered(facts: Facts, config: Config, options: dict[str, list[float]]) -> Coverage:
    shown = scaled(facts.objects, config.data.image_size)
    detector = bare_detector("rotated_fcos", config.detector.backbone, options)
    found = coverage(detector, [shown], drawn_counted(shown, MOST_OBJECTS))
    assert found is not None
    return found
