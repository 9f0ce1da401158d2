"""Weights that the backbone begins with: never random."""

from __future__ import annotations

from dbf_ray.config import Config
from dbf_ray.plan.choices import Choice, Facts


def rule(facts: Facts, config: Config) -> list[Choice]:
    """``detector.weights_backbone``: the file that was fetched, else torchvision's, downloaded if needed."""
    if (config.detector.weights_mmrotate or config.detector.weights_checkpoint) is not None:
        return []
    fetched = facts.fetched.get(config.detector.backbone)
    why = "as fetched by dbf fetch-weights" if fetched else "torchvision's, downloaded when first needed"
    return [Choice("detector.weights_backbone", fetched or "DEFAULT", why, "pretrained weights")]
