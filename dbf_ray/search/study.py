"""A study: which settings were tried, with what result, and which one is next. Optuna without Ray.

Rules that Optuna alone does not keep: baselines come first and once, also when a study is opened again; the
same setting is never trained twice; a trial without finite objectives is marked failed; no trial stays
RUNNING when its process is gone. A space of which nothing can be trained is refused before the first trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from dbf_ray.build import resolved
from dbf_ray.config import differences, identity, make_config, to_dict
from dbf_ray.errors import ConfigError, DbfRayError
from dbf_ray.search.draws import Draws
from dbf_ray.search.rows import OBJECTIVES, row_of
from dbf_ray.search.settings import Setting, Settings
from dbf_ray.search.spaces import DrawError, SearchSpace
from dbf_ray.tracking.urls import sqlite_url

DIRECTIONS: tuple[Literal["maximize"], Literal["minimize"]] = ("maximize", "minimize")
SAMPLER_TRIES = 10  # suggestions of the sampler that may be known before random ones are looked through
RANDOM_TRIES = 500  # random ones that may be known before the space counts as exhausted
FIRST_TRIES = 50  # random ones that may be invalid before the space is refused
INTERRUPTED = "interrupted"  # the failure of a trial whose process is gone
Recover = Callable[[int], Mapping[str, Any] | None]
# random trials before TPE's model is used: a third of the study, within these bounds
STARTUP_TRIALS = (4, 10)


@dataclass(frozen=True)
class Trial:
    """A trial to train: its number, its setting, and the interrupted trial that it continues."""

    number: int
    setting: Setting
    retry_of: int | None = None


@dataclass(frozen=True)
class _Planned:
    overrides: dict[str, Any] | None  # of a baseline
    params: dict[str, Any] | None  # drawn by the space
    retry_of: int | None = None
    key: str | None = None  # of the setting that was interrupted


def open_study(file: Path, name: str, *, trials: int, seed: int) -> optuna.Study:
    """Open or make the study in an sqlite file, with two objectives and Optuna's TPE sampler (independent, as
    is its default for two).

    Raises:
        ConfigError: the file cannot be used, or holds a study with other objectives.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage = optuna.storages.RDBStorage(
            sqlite_url(file), engine_kwargs={"connect_args": {"timeout": 60}}
        )
        study = optuna.create_study(
            storage=storage, study_name=name, directions=list(DIRECTIONS), load_if_exists=True
        )
        before = len(study.get_trials(deepcopy=False))
    except Exception as error:
        raise ConfigError(
            f"cannot open the study {name!r} in {file}: {' '.join(str(error).split())[:300]}; give another "
            "--study"
        ) from error
    low, high = STARTUP_TRIALS
    # opened again: other draws
    study.sampler = TPESampler(seed=seed + before, n_startup_trials=max(low, min(high, trials // 3)))
    return study


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
    ) -> None:
        """Takes up what an earlier process left: see the module's text.

        Args:
            optuna_study: opened by :func:`open_study`.
            space: what may be drawn.
            settings: makes settings out of what was drawn.
            seed: of the random draws that follow when the sampler has nothing new.
            recover: gives the summary of a trial that ended while nobody was there to record it, or None.

        Raises:
            ConfigError: the study was begun with another configuration or has drawn other choices, a baseline
                is not valid, or nothing that ``space`` draws is. The study is then as it was.
        """
        self.optuna, self.space, self.settings = optuna_study, space, settings
        self.interrupted: list[int] = []
        self.exhausted = False
        self.invalid_draws, self.last_invalid = 0, ""
        self._seed = seed
        self._numbers: dict[str, int] = {}  # key of a setting -> the trial that trains or trained it
        self._same_base()
        self._draws = Draws(space, optuna_study.study_name, self._trials())
        self._check_space()
        if not self._trials():
            optuna_study.set_user_attr("config", to_dict(settings.config))
        planned = dict(self._take_up(recover))
        baselines = {settings.make(overrides).key: overrides for overrides in space.baselines}
        self._baseline_keys = set(baselines)
        first = [
            planned.pop(key, _Planned(overrides, None))
            for key, overrides in baselines.items()
            if key not in self._numbers
        ]
        self._plans = [*first, *planned.values()]

    def ask(self) -> Trial | None:
        """The next trial to train, or None when the space has nothing new.

        ``exhausted`` is then true, ``invalid_draws`` counts draws that made no valid setting, and
        ``last_invalid`` says why the last did not.
        """
        while self._plans:
            asked = self._begin(self._plans.pop(0))
            if asked is not None:
                return asked
        for _ in range(SAMPLER_TRIES):
            asked = self._begin(_Planned(None, {}))
            if asked is not None:
                return asked
        for params in islice(self._random_draws(), SAMPLER_TRIES):
            asked = self._begin(_Planned(None, params))
            if asked is not None:
                return asked
        self.exhausted = True
        return None

    def tell(self, number: int, summary: Mapping[str, Any] | None, failure: str | None = None) -> bool:
        """Record how trial ``number`` ended; True if it counts as complete.

        Args:
            number: the trial.
            summary: the content of its summary.json; None if it did not end well.
            failure: why it failed, if it did. A summary whose objectives are missing or not finite is a
                failure too.
        """
        values = [(summary or {}).get(name) for name in OBJECTIVES]
        if failure is None and summary is None:
            failure = "the trial ended without a result"
        for name, value in zip(OBJECTIVES, values, strict=True):
            if failure is None and not (isinstance(value, int | float) and math.isfinite(value)):
                failure = f"{name} must be a finite number, got {value!r}"
        if summary is not None:
            self._set(number, "result", dict(summary))
        if failure is not None:
            self._set(number, "failure", failure[:2000])
            self.optuna.tell(number, state=TrialState.FAIL)
            return False
        self.optuna.tell(number, values=[float(value) for value in values if value is not None])
        return True

    def complete(self) -> list[FrozenTrial]:
        """Trials that were trained to the end, without duplicates."""
        return [
            trial
            for trial in self._trials()
            if trial.state == TrialState.COMPLETE and "duplicate_of" not in trial.user_attrs
        ]

    def baselines_done(self) -> bool:
        """Whether every baseline is complete."""
        keys = {trial.user_attrs["setting"]["key"] for trial in self.complete()}
        return self._baseline_keys <= keys

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        """The trials as ``dbf_ray.reports.study_result`` takes them; duplicates left out. ``folder``: where
        the trials' run folders are.
        """
        return [
            row_of(trial, folder)
            for trial in self._trials()
            if "setting" in trial.user_attrs and "duplicate_of" not in trial.user_attrs
        ]

    def _begin(self, plan: _Planned) -> Trial | None:
        """Open a trial for ``plan``; None if its setting is known or not valid (the trial is then closed and
        says why).
        """
        if plan.params:
            self.optuna.enqueue_trial(plan.params)
        trial = self.optuna.ask()
        number = trial.number
        try:
            overrides = (
                plan.overrides
                if plan.overrides is not None
                else self._draws.overrides(trial, self.settings.config)
            )
            setting = self.settings.make(overrides)
        except DbfRayError as error:
            self._note_invalid(error)
            self._set(number, "failure", str(error)[:2000])
            self.optuna.tell(number, state=TrialState.FAIL)
            if isinstance(error, DrawError):
                raise
            return None
        self._set(number, "setting", setting.facts())
        if setting.key in self._numbers:
            self._close_duplicate(number, self._numbers[setting.key])
            return None
        self._numbers[setting.key] = number
        # a space that has changed may make another setting of what was drawn
        retry_of = plan.retry_of if plan.key == setting.key else None
        if retry_of is not None:
            self._set(number, "retry_of", retry_of)
        return Trial(number, setting, retry_of)

    def _close_duplicate(self, number: int, original: int) -> None:
        self._set(number, "duplicate_of", original)
        known = self.optuna.get_trials(deepcopy=False)[original]
        if known.state == TrialState.COMPLETE:
            # the sampler learns from it what training it again would say
            self.optuna.tell(number, values=list(known.values))
        else:
            self.optuna.tell(number, state=TrialState.FAIL)

    def _random_draws(self) -> Iterator[dict[str, Any]]:
        """Parameters of settings that are not known, drawn at random; ends after RANDOM_TRIES draws."""
        self._seed += 1
        for params, drawn in islice(self._scratch_draws(), RANDOM_TRIES):
            if isinstance(drawn, DbfRayError):
                self._note_invalid(drawn)
            elif drawn.key not in self._numbers:
                yield params

    def _scratch_draws(self) -> Iterator[tuple[dict[str, Any], Setting | DbfRayError]]:
        """Random draws in a scratch study, without end: parameters, and the setting that they make or the
        reason why they make none.
        """
        scratch = optuna.create_study(directions=list(DIRECTIONS), sampler=RandomSampler(seed=self._seed))
        while True:
            trial = scratch.ask()
            try:
                drawn: Setting | DbfRayError = self.settings.make(
                    self._draws.overrides(trial, self.settings.config)
                )
            except DrawError:
                raise
            except DbfRayError as error:
                drawn = error
            yield dict(trial.params), drawn

    def _check_space(self) -> None:
        """Refuse a space that has changed its choices, and one that draws no valid setting in FIRST_TRIES
        tries: the search would train the baselines and then have nothing to do.
        """
        self._draws.rehearse(self.settings.config)
        reason = ""
        for _, drawn in islice(self._scratch_draws(), FIRST_TRIES):
            if not isinstance(drawn, DbfRayError):
                return
            reason = str(drawn)
        raise ConfigError(
            f"{self.space.file}: space(trial) must draw valid settings, but none of {FIRST_TRIES} was; the "
            f"last: {reason}"
        )

    def _note_invalid(self, error: DbfRayError) -> None:
        self.invalid_draws, self.last_invalid = self.invalid_draws + 1, str(error)

    def _take_up(self, recover: Recover) -> Iterator[tuple[str, _Planned]]:
        """Learn the complete trials, close those that an earlier process left open, and plan these again (key
        of the setting, plan).
        """
        before = self._trials()
        for trial in before:
            if trial.state == TrialState.WAITING:
                self.optuna.ask()  # takes the waiting one: only a running one can be closed
        open_ones = [trial for trial in before if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
        left = [trial for trial in open_ones if not self._close(trial, recover)]
        for trial in self.complete():
            self._numbers[trial.user_attrs["setting"]["key"]] = trial.number
        for trial in left:
            self.tell(trial.number, None, INTERRUPTED)
        taken_up = {trial.user_attrs.get("retry_of") for trial in self._trials()}
        for trial in self._trials():
            setting = trial.user_attrs.get("setting")
            if trial.user_attrs.get("failure") != INTERRUPTED or trial.number in taken_up or setting is None:
                continue  # one that was closed by a process that was killed before it came to it counts, too
            if setting["key"] not in self._numbers:
                self.interrupted.append(trial.number)
                overrides = None if trial.params else setting["overrides"]
                plan = _Planned(overrides, dict(trial.params), trial.number, setting["key"])
                yield setting["key"], plan

    def _close(self, trial: FrozenTrial, recover: Recover) -> bool:
        """Record how the trial ended, if it did; a trial can be told once, also one whose summary makes it a
        failure.
        """
        summary = recover(trial.number) if "setting" in trial.user_attrs else None
        if summary is not None:
            self.tell(trial.number, summary)
        return summary is not None

    def _same_base(self) -> None:
        """Refuse to go on with another base configuration: its trials could not be compared."""
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

    def _trials(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False)

    def _set(self, number: int, name: str, value: Any) -> None:
        # Study has no public way to annotate a trial that another process opened
        storage = self.optuna._storage
        storage.set_trial_user_attr(
            storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number), name, value
        )
