"""The sampler ``random``: the control for the others."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import ClassVar

from dbf_ray.search.samplers.base import Candidate, Facts, Told


class ByChance:
    """Any setting of the pool, all equally likely."""

    name: ClassVar[str] = "random"
    draws: ClassVar[bool] = False

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    @staticmethod
    def why_not(facts: Facts) -> str | None:
        """It serves all spaces."""
        return None

    def next(
        self,
        pool: Sequence[Candidate],
        told: Sequence[Told],
        running: Sequence[Candidate],
        have: Collection[str],
    ) -> int | None:
        """See :class:`.base.Sampler`."""
        chance = random.Random(f"{self._seed}/{len(told) + len(running)}")
        return chance.randrange(len(pool)) if pool else None
