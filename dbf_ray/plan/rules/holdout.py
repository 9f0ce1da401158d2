"""Images to evaluate on, where a folder has none of its own."""

from __future__ import annotations

from dbf_ray.config import Config
from dbf_ray.plan.choices import Choice, Facts

SHARE = 0.2


def rule(facts: Facts, config: Config) -> list[Choice]:
    """``data.selection_fraction``, where the folder has no split to evaluate on, and an image to spare."""
    if facts.evaluated is not None or facts.scenes < 2:
        return []
    why = "the folder has no other split to evaluate on: this share is held out"
    return [Choice("data.selection_fraction", SHARE, why, "held-out images")]
