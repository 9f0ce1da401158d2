"""The sampler ``grid``: all settings, in an order in which few states need to be kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import ClassVar

from dbf_ray.search.samplers.base import Candidate, Facts, Sampler, Told
from dbf_ray.search.states import deepest


class Grid(Sampler):
    """First whoever begins deepest, so saves most; of equal ones that at whose states fewest others begin:
    the tree of beginnings is walked down branch by branch, small ones first, as a depth-first walk that
    keeps little.
    """

    name: ClassVar[str] = "grid"

    @staticmethod
    def why_not(facts: Facts) -> str | None:
        """Why it cannot serve a space."""
        if facts.complete:
            return None
        return f"trains all settings of a space, and this one has more than the {len(facts.pool)} looked at"

    def next(
        self,
        pool: Sequence[Candidate],
        told: Sequence[Told],
        running: Sequence[Candidate],
        have: Collection[str],
    ) -> int | None:
        """See :class:`.base.Sampler`."""
        passing = Counter(state for one in pool for state in one.setting.states)

        def rank(place: int) -> tuple[int, int]:
            names = pool[place].setting.states
            left_at = sum(
                passing[names[epoch]] > passing[names[epoch + 1]] for epoch in range(1, len(names) - 1)
            )
            return deepest(names, have), -left_at

        return max(range(len(pool)), key=rank, default=None)
