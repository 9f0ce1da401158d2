"""Several kinds of visits in one run of Ray Tune, one kind after the other: processes that trained are there
to repeat and to validate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ray.tune.search import Searcher

from dbf_ray import stopping


class InTurn(Searcher):
    """Hands out what one searcher after the other has.

    The next is made when the one before has nothing left and nothing of it is running: it may depend on all
    that came before.
    """

    def __init__(self, searchers: Iterator[Searcher]) -> None:
        super().__init__()
        self._searchers = searchers
        self._now: Searcher | None = next(searchers, None)
        self._running: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its searcher down, and nobody reads that."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next visit; None: not now; FINISHED: never, or the search was asked to stop."""
        if stopping.asked() is not None:
            return Searcher.FINISHED
        while self._now is not None:
            found = self._now.suggest(trial_id)
            if found != Searcher.FINISHED:
                if isinstance(found, dict):
                    self._running.add(trial_id)
                return found
            if self._running:
                return None
            self._now = next(self._searchers, None)
        return Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An epoch's report."""
        if self._now is not None:
            self._now.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A visit has ended. One that a stop has ended is open still: the next search goes on with it."""
        self._running.discard(trial_id)
        last = json.loads((result or {}).get("outcome", "{}"))
        if "stopped" in last or (error and stopping.asked() is not None):
            return
        if self._now is not None:
            self._now.on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's own files are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study's own files are the state."""
