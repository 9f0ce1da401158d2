"""The sampler ``random``: the control for the others."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import ClassVar

from dbf_ray.search.samplers.base import Candidate, Sampler, Told


class ByChance(Sampler):
    """Any setting of the pool, all equally likely."""

    name: ClassVar[str] = "random"

    def next(
        self,
        pool: Sequence[Candidate],
        told: Sequence[Told],
        running: Sequence[Candidate],
        have: Collection[str],
    ) -> int | None:
        """See :class:`.base.Sampler`."""
        chance = random.Random(f"{self.seed}/{len(told) + len(running)}")
        return chance.randrange(len(pool)) if pool else None
