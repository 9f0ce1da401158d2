"""A study: which settings were tried, with what result, and which one is next. Optuna without Ray.

Rules that Optuna alone does not keep: baselines come first and once, also when a study is opened again; the
same setting is never trained twice; what several settings have in common is trained once (:mod:`.sharing`); a
trial without finite objectives is marked failed; one whose process is gone goes on under its own number. A
space of which nothing can be trained is refused before the first trial.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from dbf_ray.config import to_dict
from dbf_ray.reports.objectives import USUAL, Objectives
from dbf_ray.search.book import Asked, Book, Recover, Values
from dbf_ray.search.budget import Budget
from dbf_ray.search.choosing import Choosing
from dbf_ray.search.draws import Draws
from dbf_ray.search.features import CostOf
from dbf_ray.search.optuna_study import scratch_study
from dbf_ray.search.pool import Pool
from dbf_ray.search.same_study import check_same
from dbf_ray.search.samplers.tpe import Tpe
from dbf_ray.search.settings import Setting, Settings
from dbf_ray.search.sharing import Sharing, Visit
from dbf_ray.search.spaces import SearchSpace
from dbf_ray.search.states import Names, deepest
from dbf_ray.search.store import Store

MOST_WAITING = 8  # settings that were drawn and wait for states that others are about to reach


@dataclass(frozen=True)
class Trial:
    """A trial to train.

    Attributes:
        number: its own, see :mod:`.book`.
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


def rehearse(space: SearchSpace, settings: Settings, **options: Any) -> None:
    """Refuse what :class:`Study` would refuse of a study that is new, before there is a file.

    Raises:
        ConfigError: a baseline is not valid, or nothing that ``space`` draws is; the sampler (of
            ``options``, which are :class:`Study`'s) cannot serve it.
    """
    Study(scratch_study(), space, settings, **options)


def _epochs_left(setting: Setting, have: set[str], own: int) -> int:
    """Epochs that its trial would train, which has done ``own`` itself."""
    return len(setting.states) - 1 - max(own, deepest(setting.states, have))


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
        objectives: Objectives = USUAL,
        values: Values = lambda setting, summary: {},
        extras: Sequence[Setting] = (),
        costs: CostOf = lambda setting: None,
        sampler: str | None = Tpe.name,
        leave_out: Callable[[Setting], None] = lambda setting: None,
        budget: Budget | None = None,
        bring: Callable[[Book, Pool], None] = lambda book, pool: None,
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
            objectives, values: see :class:`.book.Book`.
            extras: settings that are trained after the baselines, on top of what is wanted.
            costs: of a setting before it is trained; None where that is not known.
            sampler: what is tried next; None: the space's sampler, or the one for its costs.
            leave_out: raises :class:`.spaces.NotAllowedError` for a setting that shall not be trained, though
                the space draws it; baselines are.
            budget: beside the number of trials.
            bring: enters results of an earlier study (:meth:`.known.Known.bring`).

        Raises:
            ConfigError: the study was begun with another configuration or has drawn from other distributions,
                a baseline is not valid, or nothing that ``space`` draws is; the sampler cannot serve the
                space. The study is then as it was.
        """
        self.space, self.settings, self.objectives = space, settings, objectives
        self.store, self.sharing, self._done, self._leave = store, sharing or Sharing(0), done, leave
        self.exhausted, self.budget = False, budget or Budget()
        self._running: dict[int, Setting] = {}
        self.book = Book(optuna_study, settings, objectives, values)
        check_same(optuna_study, settings.config, space)
        draws = Draws(
            space, optuna_study.study_name, self.book.trials(), optuna_study.user_attrs.get("draws")
        )
        pool = Pool(draws, settings, seed, leave_out)
        record = pool.check(space.file)
        self.choosing = Choosing(self.book, pool, space, costs, sampler, seed)
        if not self.book.trials():
            optuna_study.set_user_attr("config", to_dict(settings.config))
            optuna_study.set_user_attr("baselines", space.baselines)
            optuna_study.set_user_attr("draws", record)
        bring(self.book, pool)
        left = {asked.setting.key: asked for asked in self.book.take_up(recover)}
        baselines = {made.key: made for made in map(settings.make, space.baselines)}
        self._baseline_keys = set(baselines)
        first = [
            left.pop(key, Asked(made, None))
            for key, made in baselines.items()
            if key in left or key not in self.book.lines
        ]
        for made in extras:
            if made.key in left or made.key not in self.book.lines:
                first.append(left.pop(made.key, Asked(made, None)))
        self.others: list[Names] = []  # of settings that others than trials are still to train
        self.choosing.waiting = [*first, *left.values()]

    @property
    def optuna(self) -> optuna.Study:
        """The study's file."""
        return self.book.optuna

    @property
    def interrupted(self) -> list[int]:
        """Trials that an earlier process had begun and not ended."""
        return self.book.interrupted

    def ask(self, room: int = MOST_WAITING) -> Trial | Waits | None:
        """The next trial to train, or None when the space has nothing new, and ``exhausted`` is true, or the
        budget has no room for what it has, and ``budget.stopped`` is.

        Args:
            room: at most so many settings are drawn that have to wait.
        """
        have = self.store.names() if self.store is not None else set()
        waiting, looked, choosing = self.choosing.waiting, 0, self.choosing
        while True:
            for place in range(looked, len(waiting)):
                if self._may_begin(waiting[place].setting, have):
                    return self._begin(waiting.pop(place), have)
            looked = len(waiting)
            if not choosing.sampler.draws:
                return self._ask_pool(have)
            if looked >= min(room, MOST_WAITING):
                return self._nothing_now()
            drawn = choosing.draw()
            if drawn is None:
                self.exhausted = True
                return self._nothing_now() if waiting else None
            waiting.append(drawn)

    def _ask_pool(self, have: set[str]) -> Trial | Waits | None:
        """What the sampler chooses of the pool."""
        while left := self.choosing.settings():
            ready = {setting.key for setting in left if self._may_begin(setting, have)}
            if not ready:
                return self._nothing_now()
            asked = self.choosing.choose(ready, self._running.values(), have)
            if asked is not None:
                return self._begin(asked, have)
            if self.choosing.settings() == left:  # the sampler wants none
                break
        self.exhausted = not self.choosing.waiting
        return self._nothing_now() if self.choosing.waiting else None

    def _may_begin(self, setting: Setting, have: set[str]) -> bool:
        """Whether it need not wait, and the budget has room for it."""
        number = self.book.numbers.get(setting.key)
        own = 0 if number is None else self._done(number)
        waits = self.sharing.waits(setting.states, have, own)
        return not waits and self.budget.fits(_epochs_left(setting, have, own))

    def _nothing_now(self) -> Waits | None:
        """Wait while trials run; where none does it is the budget that has no room."""
        if self._running:
            return Waits()
        self.budget.stopped = True
        return None

    def tell(self, number: int, summary: Mapping[str, Any] | None, failure: str | None = None) -> bool:
        """Record how trial ``number`` ended; True if it counts as complete.

        Args:
            number: the trial.
            summary: the content of its summary.json; None if it did not end well.
            failure: why it failed, if it did. A summary whose objectives are missing or not finite, or of a
                training that was stopped, is a failure too.
        """
        self.sharing.end(number)
        self.budget.end(number)
        running = self._running.pop(number, None)
        if running is not None and (failure or self.book.fault_of(running, summary)):
            self._leave(number, running.states)  # before it is told: it may be killed between
        return self.book.tell(number, summary, failure)

    def failure_of(self, number: int) -> str | None:
        """Why a trial failed, if it did."""
        return self.book.row_of(number).user_attrs.get("failure")

    def visit(self, name: Hashable, names: Names, done: int) -> Visit | None:
        """How a training that is no trial of the study's begins now, where it has ``done`` epochs itself;
        None: it waits for what another is about to reach.
        """
        have = self.store.names() if self.store is not None else set()
        if self.sharing.waits(names, have, done):
            return None
        visit = self.sharing.begin(name, names, self._open(), have, done)
        self.sweep()
        return visit

    def reached(self, number: Hashable, epochs: int) -> None:
        """A running trial, or what :meth:`visit` began, has done so many epochs."""
        self.budget.epoch(number)
        if self.sharing.reached(number, epochs):
            self.sweep()

    def sweep(self) -> None:
        """Remove the states that are not needed any more."""
        if self.store is not None and (have := self.store.names()):
            self.store.sweep(self.sharing.needed(self._open(), have), have)

    def complete(self) -> list[FrozenTrial]:
        """Rows of Optuna's study whose settings were trained to the end, without duplicates."""
        return self.book.complete()

    def baselines_done(self) -> bool:
        """Whether every baseline is complete."""
        keys = {trial.user_attrs["setting"]["key"] for trial in self.complete()}
        return self._baseline_keys <= keys

    def baselines(self) -> set[int]:
        """The numbers of the baselines that have begun."""
        return self.begun_of(self._baseline_keys)

    def begun_of(self, keys: Collection[str]) -> set[int]:
        """The numbers of the settings with these keys that have begun."""
        return {number for key, number in self.book.numbers.items() if key in keys}

    def known_settings(self) -> int:
        """How many settings there are, as far as is known: of the pool, baselines, and what was begun."""
        pool = {setting.key for setting in self.choosing.pool.settings}
        return len(pool | self._baseline_keys | {*self.book.numbers})

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        """The trials as ``dbf_ray.reports.study_result`` takes them, one for each setting, by number.
        ``folder``: where the trials' run folders are.
        """
        return self.book.rows(folder)

    def _begin(self, asked: Asked, have: set[str]) -> Trial:
        """Give a setting its number, if it has none, and say how it is trained."""
        setting = asked.setting
        number, again = self.book.begin(asked)
        done = self._done(number)
        self._running[number] = setting
        self.budget.begin(number, _epochs_left(setting, have, done))
        visit = self.sharing.begin(number, setting.states, self._open(), have, done)
        self.sweep()
        return Trial(number, setting, visit, again)

    def _open(self) -> list[Names]:
        """Names of states of the settings that may still begin, or begin again since they failed."""
        left = self.choosing.left() if self.store is not None else [a.setting for a in self.choosing.waiting]
        return [*self.others, *(setting.states for setting in left)]
