"""The study, as Ray Tune's search algorithm."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ray.tune.search import Searcher

from dbf_ray.config import to_dict
from dbf_ray.search.spaces import DrawError
from dbf_ray.search.study import Study, Trial, Waits

SPARE = 3
IN_A_ROW = 10  # failures, after which more would fail, too
DIED = "the trial's process died; Ray's logs say why"


class StudySearcher(Searcher):
    """Hands the study's next setting to Tune, and Tune's results to the study, until the wanted number of
    trials is complete.

    A failed trial is made up for by another one, but not for ever: after ``wanted + SPARE`` failures, or
    IN_A_ROW of them one after the other, no more are started. Nor are they where the space draws what the
    study cannot keep: ``refused`` then says so.

    Each of Tune's trials is one visit: a trainable gets ``{"number", "config" (complete tree), "begin"
    (states on its way that the store has, deepest first), "keep" ([epochs done, state] of each that it
    publishes)}``; its last report is ``{"outcome": JSON text}`` with a summary or a failure.
    """

    def __init__(
        self,
        study: Study,
        wanted: int,
        on_begin: Callable[[Trial], None],
        on_epoch: Callable[[int, Mapping[str, Any]], None],
        on_end: Callable[[int, Mapping[str, Any], str | None], None],
        extras: Collection[str] = (),
        about: Callable[[Trial], dict[str, Any]] = lambda asked: {},
    ) -> None:
        """``wanted`` complete trials more; callbacks get a trial's number and what is known, ``on_end`` the
        outcome, and the failure if any. ``extras``: keys of settings that are not made up for when they fail;
        ``about``: what a trial's process is told beside, under that key.
        """
        super().__init__()  # no metric: the study has both objectives
        self._study, self._wanted, self._failures_left = study, wanted, wanted + SPARE
        self.refused: DrawError | None = None
        self.failed_in_a_row = 0
        self._on_begin, self._on_epoch, self._on_end = on_begin, on_epoch, on_end
        self._about = about
        self._numbers: dict[str, int] = {}
        self._extra_keys, self._extras = frozenset(extras), set[int]()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next visit; None: not now, since what is left waits for states that others are about to reach,
        or for one of those running to fail; FINISHED: never, or the space has nothing new.
        """
        if self._wanted <= 0 or self._failures_left <= 0 or self.failed_in_a_row >= IN_A_ROW or self.refused:
            return Searcher.FINISHED
        room = self._wanted - len(self._numbers)
        if room <= 0:
            return None
        try:
            asked = self._study.ask(room)
        except DrawError as error:
            self.refused, asked = error, None
        if asked is None:
            return Searcher.FINISHED
        if isinstance(asked, Waits):
            return None
        self._numbers[trial_id] = asked.number
        if asked.setting.key in self._extra_keys:
            self._extras.add(asked.number)
        self._on_begin(asked)
        return {
            "number": asked.number,
            "config": to_dict(asked.setting.config),
            "begin": list(asked.visit.begins),
            "keep": [list(pair) for pair in asked.visit.keep.items()],
            "about": self._about(asked),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An epoch's report."""
        if trial_id in self._numbers and "outcome" not in result:
            self._study.reached(self._numbers[trial_id], result["epoch"] + 1)
            self._on_epoch(self._numbers[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how the trial ended."""
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        last = json.loads((result or {}).get("outcome", "{}"))
        failure = last.get("failure") or (DIED if error else None)
        complete = self._study.tell(number, last.get("summary"), failure)
        self._study.sweep()
        self._wanted -= complete or number in self._extras
        self._failures_left -= not complete
        self.failed_in_a_row = 0 if complete else self.failed_in_a_row + 1
        if not complete and failure is None:
            failure = self._study.failure_of(number)
        self._on_end(number, last, failure)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's own file is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study's own file is the state."""
