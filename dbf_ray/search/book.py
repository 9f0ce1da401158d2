"""The book of a study's trials: rows of Optuna's study, and what is noted in them.

A trial is a setting that was begun. Its number, from 0 in the order of their begins, is not Optuna's, which
counts draws: what was drawn twice, was not valid, or waits has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dbf_ray.errors import DbfRayError
from dbf_ray.reports.objectives import USUAL, Objectives
from dbf_ray.search.rows import row_of
from dbf_ray.search.settings import Setting, Settings

Recover = Callable[[int], Mapping[str, Any] | None]
Values = Callable[[Setting, Mapping[str, Any]], Mapping[str, float]]


@dataclass(frozen=True)
class Asked:
    """A setting that will be trained, and its row in Optuna's study; None: not asked there yet."""

    setting: Setting
    row: int | None


class Book:
    """Rows of Optuna's study, by settings and by trials.

    Args:
        optuna_study: opened by :func:`.optuna_study.open_study`.
        settings: makes settings out of what was drawn.
        objectives: by which trials are compared.
        values: what the study itself says of a trained setting with this summary, by name: costs in its own
            unit. They count instead of the summary's.

    Attributes:
        optuna: Optuna's study.
        lines: key of a setting -> its row in Optuna's study.
        numbers: key of a setting that was begun -> its trial's number.
        interrupted: numbers of the trials that an earlier process had begun and not ended.
    """

    def __init__(
        self,
        optuna_study: optuna.Study,
        settings: Settings,
        objectives: Objectives = USUAL,
        values: Values = lambda setting, summary: {},
    ) -> None:
        self.optuna, self.settings, self.objectives, self._values = (
            optuna_study,
            settings,
            objectives,
            values,
        )
        self.lines: dict[str, int] = {}
        self.numbers: dict[str, int] = {}
        self.interrupted: list[int] = []

    def take_up(self, recover: Recover) -> Iterator[Asked]:
        """Learn what was trained, record what ended unrecorded, and give what an earlier process left open:
        trials that it had begun, and settings that waited.

        Args:
            recover: gives the summary of a trial that ended while nobody was there to record it, or None.
        """
        for trial in self.trials():
            if trial.state == TrialState.WAITING:
                self.optuna.ask()  # takes the waiting one: only a running one can be closed
        for trial in self.trials():
            if (number := trial.user_attrs.get("number")) is not None:
                self.numbers[trial.user_attrs["setting"]["key"]] = number
                summary = recover(number) if trial.state == TrialState.RUNNING else None
                if summary is not None:
                    self.tell(number, summary)
        for trial in self.complete():
            self.lines[trial.user_attrs["setting"]["key"]] = trial.number
        left = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]
        for trial in sorted(left, key=lambda trial: "number" not in trial.user_attrs):
            asked = self._opened_before(trial)
            if asked is not None:
                self.lines[asked.setting.key] = trial.number
                if "number" in trial.user_attrs:
                    self.interrupted.append(trial.user_attrs["number"])
                yield asked

    def begin(self, asked: Asked) -> tuple[int, bool]:
        """Give a setting its number, if it has none, and say whether it had one."""
        setting, row = asked.setting, asked.row
        if row is None:
            row = self.optuna.ask().number
            self.note(row, "setting", setting.facts())
        number = self.numbers.get(setting.key)
        again = number is not None
        if number is None:
            number = self.numbers_taken()
        if "number" not in self.trials()[row].user_attrs:
            self.note(row, "number", number)
        self.lines[setting.key], self.numbers[setting.key] = row, number
        return number, again

    def tell(self, number: int, summary: Mapping[str, Any] | None, failure: str | None = None) -> bool:
        """Record how trial ``number`` ended; True if it counts as complete. See :meth:`.study.Study.tell`."""
        row = self.row_of(number).number
        setting = self._setting(self.row_of(number))
        failure = failure or self.fault_of(setting, summary)
        if summary is not None:
            self.note(row, "result", dict(summary))
        point = None if failure is not None else self.point(setting, summary or {})
        if point is None:
            self.fail(row, str(failure))
            return False
        self.optuna.tell(row, values=list(point))
        return True

    def fault_of(self, setting: Setting, summary: Mapping[str, Any] | None) -> str | None:
        """Why the summary of a trained setting is no result; None: it is one."""
        if summary is None:
            return "the trial ended without a result"
        if summary.get("stopped_early"):
            return "the training was stopped before its last epoch"
        known = self.values_of(setting, summary)
        for name in self.objectives.names():
            value = known.get(name)
            if not (isinstance(value, int | float) and math.isfinite(value)):
                return f"{name} must be a finite number, got {value!r}"
        return None

    def fail(self, row: int, why: str) -> None:
        """Close a row."""
        self.note(row, "failure", why[:2000])
        self.optuna.tell(row, state=TrialState.FAIL)

    def put_back(self) -> None:
        """Nobody trains the open rows now; :meth:`take_up` finds them."""
        storage = self.optuna._storage
        for trial in self.trials():
            if trial.state == TrialState.RUNNING:
                storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def close_duplicate(self, row: int, original: int | None) -> None:
        """Close the row of a setting that ``original`` has already."""
        self.note(row, "duplicate_of", original)
        known = None if original is None else self.trials()[original]
        if known is not None and known.state == TrialState.COMPLETE:
            # the sampler learns from it what training it again would say
            self.optuna.tell(row, values=list(known.values))
        else:
            self.optuna.tell(row, state=TrialState.FAIL)

    def trials(self) -> list[FrozenTrial]:
        """All rows."""
        return self.optuna.get_trials(deepcopy=False)

    def complete(self) -> list[FrozenTrial]:
        """Rows whose settings were trained to the end, without duplicates."""
        return [
            trial
            for trial in self.trials()
            if trial.state == TrialState.COMPLETE and "duplicate_of" not in trial.user_attrs
        ]

    def values_of(self, setting: Setting, summary: Mapping[str, Any]) -> dict[str, Any]:
        """The summary of a trained setting, with what the study itself says of it."""
        return {**summary, **self._values(setting, summary)}

    def point(self, setting: Setting, summary: Mapping[str, Any]) -> tuple[float, float] | None:
        """Accuracy and cost of a trained setting."""
        return self.objectives.point(self.values_of(setting, summary))

    def begun_well(self) -> set[str]:
        """Keys of the settings that have begun, but for those that failed."""
        begun = self._begun().values()
        return {row.user_attrs["setting"]["key"] for row in begun if row.state != TrialState.FAIL}

    def numbers_taken(self) -> int:
        """How many numbers have been given: the next one."""
        return 1 + max(self._begun(), default=-1)

    def points(self) -> dict[str, tuple[Setting, tuple[float, float]]]:
        """Settings that were trained, with accuracy and cost, by their keys."""
        found = {}
        for row in self.complete():
            setting = self._setting(row)
            if (point := self.point(setting, row.user_attrs["result"])) is not None:
                found[setting.key] = setting, point
        return found

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        """See :meth:`.study.Study.rows`."""
        return [
            row_of(row, folder, self._values(self._setting(row), row.user_attrs.get("result", {})))
            for _, row in sorted(self._begun().items())
        ]

    def row_of(self, number: int) -> FrozenTrial:
        """The row of a trial; of one that failed and was begun again the last."""
        return self._begun()[number]

    def note(self, row: int, name: str, value: Any) -> None:
        """Note something in a row."""
        # Study has no public way to annotate a trial that another process opened
        storage = self.optuna._storage
        storage.set_trial_user_attr(
            storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, row), name, value
        )

    def _setting(self, row: FrozenTrial) -> Setting:
        return self.settings.make(row.user_attrs["setting"]["overrides"])

    def _begun(self) -> dict[int, FrozenTrial]:
        return {trial.user_attrs["number"]: trial for trial in self.trials() if "number" in trial.user_attrs}

    def _opened_before(self, trial: FrozenTrial) -> Asked | None:
        """What an open row was to train; None, and it is closed, where that was not noted, is a duplicate, or
        would be another setting now.
        """
        facts, failure = trial.user_attrs.get("setting"), "interrupted while it was drawn"
        if facts is not None and facts["key"] not in self.lines:
            failure = "interrupted, and another setting by now"
            try:
                setting = self.settings.make(facts["overrides"])
                if setting.key == facts["key"]:
                    return Asked(setting, trial.number)
            except DbfRayError as error:
                failure = f"interrupted, and not valid any more: {error}"
        self.fail(trial.number, failure)
        return None
