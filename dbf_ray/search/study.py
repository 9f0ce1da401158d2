"""A study: which settings were tried, with what result, and which one is next. Optuna without Ray.

Rules that Optuna alone does not keep: baselines come first and once, also when a study is opened again; the
same setting is never trained twice; what several settings have in common is trained once (:mod:`.sharing`); a
trial without finite objectives is marked failed; one whose process is gone goes on under its own number. A
space of which nothing can be trained is refused before the first trial.

A trial is a setting that was begun. Its number, from 0 in the order of their begins, is not Optuna's, which
counts draws: what was drawn twice, was not valid, or waits has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dbf_ray.build import resolved
from dbf_ray.config import differences, identity, make_config, to_dict
from dbf_ray.errors import ConfigError, DbfRayError
from dbf_ray.search.draws import Draws
from dbf_ray.search.optuna_study import DIRECTIONS
from dbf_ray.search.pool import Pool
from dbf_ray.search.rows import OBJECTIVES, fault_of, row_of
from dbf_ray.search.settings import Setting, Settings
from dbf_ray.search.sharing import Sharing, Visit
from dbf_ray.search.spaces import DrawError, SearchSpace
from dbf_ray.search.states import Names
from dbf_ray.search.store import Store

SAMPLER_TRIES = 10  # suggestions of the sampler that may be known before random ones are looked through
RANDOM_TRIES = 500  # random ones that may be known before the space counts as exhausted
MOST_WAITING = 8  # settings that were drawn and wait for states that others are about to reach
Recover = Callable[[int], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Trial:
    """A trial to train.

    Attributes:
        number: its own, see the module's text.
        setting: what is trained.
        visit: where it begins, and what it keeps for others.
        again: it was begun before, and was interrupted or failed.
    """

    number: int
    setting: Setting
    visit: Visit = field(default_factory=Visit)
    again: bool = False


@dataclass(frozen=True)
class Waits:
    """Nothing can begin now: what is left waits for states that running trials are about to reach."""


@dataclass(frozen=True)
class _Asked:
    """A setting that will be trained, and its row in Optuna's study; None: not asked there yet."""

    setting: Setting
    row: int | None


def rehearse(space: SearchSpace, settings: Settings) -> None:
    """Refuse what :class:`Study` would refuse of a study that is new, before there is a file.

    Raises:
        ConfigError: a baseline is not valid, or nothing that ``space`` draws is.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    Study(optuna.create_study(directions=list(DIRECTIONS)), space, settings)


class Study:
    """Asks for the next setting to train and takes the results."""

    def __init__(
        self,
        optuna_study: optuna.Study,
        space: SearchSpace,
        settings: Settings,
        *,
        seed: int = 0,
        recover: Recover = lambda number: None,
        store: Store | None = None,
        sharing: Sharing | None = None,
        done: Callable[[int], int] = lambda number: 0,
        leave: Callable[[int, Names], None] = lambda number, names: None,
    ) -> None:
        """Takes up what an earlier process left: see the module's text.

        Args:
            optuna_study: opened by :func:`.optuna_study.open_study`.
            space: what may be drawn.
            settings: makes settings out of what was drawn.
            seed: of the pool, and of random draws that follow when the sampler has nothing new.
            recover: gives the summary of a trial that ended while nobody was there to record it, or None.
            store: has the states of settings; None: nothing is shared.
            sharing: which states are shared.
            done: epochs of which a trial has a checkpoint of its own.
            leave: makes what a trial that fails has trained a state of the store; names are those of its
                states.

        Raises:
            ConfigError: the study was begun with another configuration or has drawn other choices, a baseline
                is not valid, or nothing that ``space`` draws is. The study is then as it was.
        """
        self.optuna, self.space, self.settings = optuna_study, space, settings
        self.store, self.sharing, self._done, self._leave = store, sharing or Sharing(0), done, leave
        self._states: dict[int, Names] = {}  # of trials that were begun here
        self.interrupted: list[int] = []
        self.exhausted = False
        self.invalid_draws, self.last_invalid = 0, ""
        self._seed = seed
        self._rows: dict[str, int] = {}  # key of a setting -> its row in Optuna's study
        self._numbers: dict[str, int] = {}  # key of a setting that was begun -> its trial's number
        self._same_base()
        self._draws = Draws(space, optuna_study.study_name, self._trials())
        self._pool = Pool(self._draws, settings, seed)
        self._pool.check(space.file)
        if not self._trials():
            optuna_study.set_user_attr("config", to_dict(settings.config))
            optuna_study.set_user_attr("baselines", space.baselines)
        left = {asked.setting.key: asked for asked in self._take_up(recover)}
        baselines = {made.key: made for made in map(settings.make, space.baselines)}
        self._baseline_keys = set(baselines)
        first = [
            left.pop(key, _Asked(made, None))
            for key, made in baselines.items()
            if key in left or key not in self._rows
        ]
        self._waiting = [*first, *left.values()]

    def ask(self, room: int = MOST_WAITING) -> Trial | Waits | None:
        """The next trial to train, or None when the space has nothing new.

        ``exhausted`` is then true, ``invalid_draws`` counts draws that made no valid setting, and
        ``last_invalid`` says why the last did not.

        Args:
            room: at most so many settings are drawn that have to wait.
        """
        have = self.store.names() if self.store is not None else set()
        looked = 0
        while True:
            for place in range(looked, len(self._waiting)):
                setting = self._waiting[place].setting
                if not self.sharing.waits(setting.states, have, self._done_before(setting)):
                    return self._begin(self._waiting.pop(place), have)
            looked = len(self._waiting)
            if looked >= min(room, MOST_WAITING):
                return Waits()
            drawn = self._draw()
            if drawn is None:
                self.exhausted = True
                return Waits() if self._waiting else None
            self._waiting.append(drawn)

    def tell(self, number: int, summary: Mapping[str, Any] | None, failure: str | None = None) -> bool:
        """Record how trial ``number`` ended; True if it counts as complete.

        Args:
            number: the trial.
            summary: the content of its summary.json; None if it did not end well.
            failure: why it failed, if it did. A summary whose objectives are missing or not finite, or of a
                training that was stopped, is a failure too.
        """
        row = self._row_of(number).number
        self.sharing.end(number)
        failure = failure or fault_of(summary)
        if summary is not None:
            self._set(row, "result", dict(summary))
        if failure is not None or summary is None:
            if number in self._states:
                self._leave(number, self._states[number])
            self._set(row, "failure", str(failure)[:2000])
            self.optuna.tell(row, state=TrialState.FAIL)
            return False
        self.optuna.tell(row, values=[float(summary[name]) for name in OBJECTIVES])
        return True

    def failure_of(self, number: int) -> str | None:
        """Why a trial failed, if it did."""
        return self._row_of(number).user_attrs.get("failure")

    def reached(self, number: int, epochs: int) -> None:
        """A running trial has done so many epochs."""
        if self.sharing.reached(number, epochs):
            self.sweep()

    def sweep(self) -> None:
        """Remove the states that are not needed any more."""
        if self.store is not None and (have := self.store.names()):
            self.store.sweep(self.sharing.needed(self._open(), have))

    def complete(self) -> list[FrozenTrial]:
        """Rows of Optuna's study whose settings were trained to the end, without duplicates."""
        return [
            trial
            for trial in self._trials()
            if trial.state == TrialState.COMPLETE and "duplicate_of" not in trial.user_attrs
        ]

    def baselines_done(self) -> bool:
        """Whether every baseline is complete."""
        keys = {trial.user_attrs["setting"]["key"] for trial in self.complete()}
        return self._baseline_keys <= keys

    def baselines(self) -> set[int]:
        """The numbers of the baselines that have begun."""
        return {number for key, number in self._numbers.items() if key in self._baseline_keys}

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        """The trials as ``dbf_ray.reports.study_result`` takes them, one for each setting, by number.
        ``folder``: where the trials' run folders are.
        """
        begun = self._begun()
        return [row_of(begun[number], folder) for number in sorted(begun)]

    def _begun(self) -> dict[int, FrozenTrial]:
        """Rows by the trials' numbers; of one that failed and was begun again the last."""
        return {trial.user_attrs["number"]: trial for trial in self._trials() if "number" in trial.user_attrs}

    def _row_of(self, number: int) -> FrozenTrial:
        return self._begun()[number]

    def _begin(self, asked: _Asked, have: set[str]) -> Trial:
        """Give a setting its number, if it has none, and say how it is trained."""
        setting, row = asked.setting, asked.row
        if row is None:
            row = self.optuna.ask().number
            self._set(row, "setting", setting.facts())
        number = self._numbers.get(setting.key)
        again = number is not None
        if number is None:
            number = 1 + max(self._numbers.values(), default=-1)
        if "number" not in self._trials()[row].user_attrs:
            self._set(row, "number", number)
        self._rows[setting.key], self._numbers[setting.key] = row, number
        self._states[number] = setting.states
        visit = self.sharing.begin(number, setting.states, self._open(), have, self._done(number))
        self.sweep()
        return Trial(number, setting, visit, again)

    def _done_before(self, setting: Setting) -> int:
        """Epochs of which a setting has a checkpoint of its own."""
        number = self._numbers.get(setting.key)
        return 0 if number is None else self._done(number)

    def _draw(self) -> _Asked | None:
        """A setting that is not known, from the sampler if it has one in a few tries, else at random."""
        at_random = islice(self._random_draws(), SAMPLER_TRIES)
        for params in chain(repeat({}, SAMPLER_TRIES), at_random):
            if (asked := self._ask_optuna(params)) is not None:
                return asked
        return None

    def _ask_optuna(self, params: dict[str, Any]) -> _Asked | None:
        """Open a row for what the space draws; None if its setting is known or not valid (the row is then
        closed and says why).
        """
        if params:
            self.optuna.enqueue_trial(params)
        trial = self.optuna.ask()
        row = trial.number
        try:
            setting = self.settings.make(self._draws.overrides(trial, self.settings.config))
        except DbfRayError as error:
            self._note_invalid(error)
            self._set(row, "failure", str(error)[:2000])
            self.optuna.tell(row, state=TrialState.FAIL)
            if isinstance(error, DrawError):
                raise
            return None
        self._set(row, "setting", setting.facts())
        if self._is_known(setting):
            self._close_duplicate(row, self._rows.get(setting.key))
            return None
        self._rows[setting.key] = row
        return _Asked(setting, row)

    def _close_duplicate(self, row: int, original: int | None) -> None:
        self._set(row, "duplicate_of", original)
        known = None if original is None else self._trials()[original]
        if known is not None and known.state == TrialState.COMPLETE:
            # the sampler learns from it what training it again would say
            self.optuna.tell(row, values=list(known.values))
        else:
            self.optuna.tell(row, state=TrialState.FAIL)

    def _open(self) -> list[Names]:
        """Names of states of the settings that may still begin, or begin again since they failed."""
        waiting = [asked.setting for asked in self._waiting]
        begun = [trial for trial in self._begun().values() if trial.state != TrialState.FAIL]
        known = {setting.key for setting in waiting} | {row.user_attrs["setting"]["key"] for row in begun}
        drawn = self._pool.settings if self.store is not None else []
        pool = [setting for setting in drawn if setting.key not in known]
        return [setting.states for setting in (*waiting, *pool)]

    def _random_draws(self) -> Iterator[dict[str, Any]]:
        """Parameters of settings that are not known: those of the pool, then drawn at random; ends after
        RANDOM_TRIES draws.
        """
        for params, setting in self._pool.drawn:
            if not self._is_known(setting):
                yield params
        self._seed += 1
        for params, drawn in islice(self._pool.draw(self._seed), RANDOM_TRIES):
            if isinstance(drawn, DbfRayError):
                self._note_invalid(drawn)
            elif not self._is_known(drawn):
                yield params

    def _is_known(self, setting: Setting) -> bool:
        return setting.key in self._rows or any(setting.key == asked.setting.key for asked in self._waiting)

    def _note_invalid(self, error: DbfRayError) -> None:
        self.invalid_draws, self.last_invalid = self.invalid_draws + 1, str(error)

    def _take_up(self, recover: Recover) -> Iterator[_Asked]:
        """Learn what was trained, record what ended unrecorded, and give what an earlier process left open:
        trials that it had begun, and settings that waited.
        """
        for trial in self._trials():
            if trial.state == TrialState.WAITING:
                self.optuna.ask()  # takes the waiting one: only a running one can be closed
        for trial in self._trials():
            if (number := trial.user_attrs.get("number")) is not None:
                self._numbers[trial.user_attrs["setting"]["key"]] = number
                summary = recover(number) if trial.state == TrialState.RUNNING else None
                if summary is not None:
                    self.tell(number, summary)
        for trial in self.complete():
            self._rows[trial.user_attrs["setting"]["key"]] = trial.number
        left = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
        for trial in sorted(left, key=lambda trial: "number" not in trial.user_attrs):
            asked = self._opened_before(trial)
            if asked is not None:
                self._rows[asked.setting.key] = trial.number
                if "number" in trial.user_attrs:
                    self.interrupted.append(trial.user_attrs["number"])
                yield asked

    def _opened_before(self, trial: FrozenTrial) -> _Asked | None:
        """What an open row was to train; None, and it is closed, where that was not noted, is a duplicate, or
        would be another setting now.
        """
        facts, failure = trial.user_attrs.get("setting"), "interrupted while it was drawn"
        if facts is not None and facts["key"] not in self._rows:
            failure = "interrupted, and another setting by now"
            try:
                setting = self.settings.make(facts["overrides"])
                if setting.key == facts["key"]:
                    return _Asked(setting, trial.number)
            except DbfRayError as error:
                failure = f"interrupted, and not valid any more: {error}"
        self._set(trial.number, "failure", failure[:2000])
        self.optuna.tell(trial.number, state=TrialState.FAIL)
        return None

    def _same_base(self) -> None:
        """Refuse to go on with another base configuration, whose trials could not be compared, or with other
        baselines.
        """
        stored = self.optuna.user_attrs.get("config")
        if stored is None or not self._trials():
            return
        name = self.optuna.study_name
        begun = make_config(stored, f"study {name!r}")
        changed = differences(identity(resolved(begun)), identity(resolved(self.settings.config)))
        if changed:
            raise ConfigError(
                f"the study {name!r} was begun with other settings, it differs in {', '.join(changed[:5])}; "
                "give the same ones to continue it, or another --study"
            )
        before, now = self.optuna.user_attrs["baselines"], self.space.baselines
        differing = [f"{one} is new" for one in now if one not in before]
        differing += [f"{one} is gone" for one in before if one not in now]
        if differing:
            raise ConfigError(
                f"{self.space.file}: the study {name!r} was begun with other BASELINES, "
                f"{', '.join(differing[:5])}; give the same ones to continue it, or another --study"
            )

    def _trials(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False)

    def _set(self, row: int, name: str, value: Any) -> None:
        # Study has no public way to annotate a trial that another process opened
        storage = self.optuna._storage
        storage.set_trial_user_attr(
            storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, row), name, value
        )
