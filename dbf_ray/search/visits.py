"""A list of visits, as Ray Tune's search algorithm: each is tried once in a call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ray.tune.search import Searcher

from dbf_ray.search.searcher import DIED

T = TypeVar("T")


class ListSearcher(Searcher, Generic[T]):
    """Hands out what is left of a list.

    Args:
        left: what is to be visited.
        begin: the assignment of one, or None: not now, others are about to reach where it begins.
        on_epoch: called with an epoch's report.
        on_end: called with the outcome, and why it failed if it did.
    """

    def __init__(
        self,
        left: Sequence[T],
        begin: Callable[[T], dict[str, Any] | None],
        on_epoch: Callable[[T, Mapping[str, Any]], None],
        on_end: Callable[[T, Mapping[str, Any], str | None], None],
    ) -> None:
        super().__init__()
        self._left, self._begin, self._on_epoch, self._on_end = list(left), begin, on_epoch, on_end
        self._running: dict[str, T] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The first that can begin; None: none can now; FINISHED: none is left."""
        if not self._left:
            return Searcher.FINISHED
        for place, one in enumerate(self._left):
            if (assignment := self._begin(one)) is not None:
                self._running[trial_id] = self._left.pop(place)
                return assignment
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An epoch's report."""
        if trial_id in self._running and "outcome" not in result:
            self._on_epoch(self._running[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A visit has ended."""
        one = self._running.pop(trial_id, None)
        if one is not None:
            outcome = json.loads((result or {}).get("outcome", "{}"))
            failure = outcome.get("failure") or (DIED if error or not outcome else None)
            self._on_end(one, outcome, failure)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the folders of what was visited are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the folders of what was visited are the state."""
