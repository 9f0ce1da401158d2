"""Orientations in which training images are shown."""

from __future__ import annotations

from dbf_ray.config import Config
from dbf_ray.data.transforms import IDENTITY, ORIENTATIONS
from dbf_ray.plan.choices import Choice, Facts

OBLONG = 0.8  # mean of short side / long side of images, below which turns are dear


def rule(facts: Facts, config: Config) -> list[Choice]:
    """All eight: seen from above, no side of an image is its upper one."""
    others = [name for name in ORIENTATIONS if name != IDENTITY]
    why = "seen from above nothing has an upper side; a feature cache keeps up to 8 views of an image"
    sides = facts.objects.sizes.double()
    if (sides.amin(-1) / sides.amax(-1)).mean() < OBLONG:
        why += ", and oblong images that are turned are padded to squares"
    return [Choice("data.flips", others, why, "views")]
