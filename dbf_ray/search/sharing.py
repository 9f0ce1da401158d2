"""Where a trial begins, what it keeps for others, and what it waits for. Pure: the store says what it has."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field

from dbf_ray.search.states import Names, deepest, leaves, wanted


@dataclass(frozen=True)
class Visit:
    """How a trial is trained.

    Attributes:
        begins: states on its way that the store has, deepest first; empty: from the beginning.
        keep: states that others will begin at, by the epochs done.
    """

    begins: tuple[str, ...] = ()
    keep: dict[int, str] = field(default_factory=dict)


class Sharing:
    """Of all trials of a study, which states they share.

    ``open_`` below: the names of settings that may still be trained, which have not begun. ``have``: the
    states that the store has.

    Args:
        most: states that are kept at once for open settings; 0: nothing is shared.
        every: keep every state of every trial instead.
    """

    def __init__(self, most: int, every: bool = False) -> None:
        self.most, self.every = most, every
        self._running: dict[Hashable, tuple[Visit, int]] = {}  # a trial's visit, and the epochs it has done

    def waits(self, names: Names, have: Collection[str], done: int = 0) -> bool:
        """Whether a running trial is about to reach a state on a setting's way, beyond what the store has and
        the ``done`` epochs that it has itself: it would get there no sooner by itself.
        """
        return self.most > 0 and deepest(names, self._coming()) > max(done, deepest(names, have))

    def begin(
        self, number: Hashable, names: Names, open_: Collection[Names], have: Collection[str], done: int = 0
    ) -> Visit:
        """Trial ``number`` begins, or goes on where it has ``done`` epochs itself."""
        found = [epoch for epoch in range(len(names) - 1, 0, -1) if self.most and names[epoch] in have]
        first = max(done, *found[:1], 0)
        left = range(1, len(names)) if self.every else sorted(leaves(names, open_))
        keep = {epoch: names[epoch] for epoch in left if epoch >= first and names[epoch] not in have}
        if not self.every:
            chosen = wanted(open_, [*sorted({*have, *self._coming()}), *keep.values()], self.most)
            keep = {epoch: state for epoch, state in keep.items() if state in chosen}
        visit = Visit(tuple(names[epoch] for epoch in found), keep)
        # what it has done and did not publish it publishes when its process is there
        self._running[number] = visit, first - (first in keep)
        return visit

    def reached(self, number: Hashable, epochs: int) -> bool:
        """A running trial has done so many epochs, and published what it was to keep of them; whether it was
        to keep the last.
        """
        if number not in self._running:
            return False
        visit, _ = self._running[number]
        self._running[number] = visit, epochs
        return epochs in visit.keep

    def end(self, number: Hashable) -> None:
        """A trial has ended, however it did."""
        self._running.pop(number, None)

    def needed(self, open_: Collection[Names], have: Collection[str]) -> set[str]:
        """Those of the store's states that must stay: what open settings save most by, within ``most``, and
        what running trials begin at.
        """
        if self.every:
            return {*have}
        begins = {visit.begins[0] for visit, _ in self._running.values() if visit.begins}
        return {*wanted(open_, sorted({*have, *self._coming()}), self.most), *begins} & {*have}

    def _coming(self) -> set[str]:
        return {
            state
            for visit, done in self._running.values()
            for epoch, state in visit.keep.items()
            if epoch > done
        }
