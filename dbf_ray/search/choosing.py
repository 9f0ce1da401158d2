"""Which setting is tried next: one of the pool that the sampler chooses, or what Optuna draws; and where that
is known already, what chance does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice, repeat
from typing import Any

from dbf_ray.errors import DbfRayError
from dbf_ray.search.book import Asked, Book
from dbf_ray.search.features import Candidates, CostOf, Quarters
from dbf_ray.search.pool import Pool
from dbf_ray.search.samplers import Facts, Told, make_sampler
from dbf_ray.search.samplers.tpe import Tpe
from dbf_ray.search.settings import Setting
from dbf_ray.search.spaces import DrawError, NotAllowedError, SearchSpace

SAMPLER_TRIES = 10  # suggestions of Optuna that may be known before random ones are looked through
RANDOM_TRIES = 500  # random ones that may be known before the space counts as exhausted


class Choosing:
    """Chooses settings that the book does not know.

    Args:
        book: what is known.
        pool: of the space.
        space: whose baselines are trained first.
        cost: of a setting before it is trained; None where that is not known.
        sampler: its name; None: the space's, or the one for its costs.
        seed: of what is left to chance.

    Attributes:
        waiting: settings that were drawn, or are trained whatever is drawn, and have not begun.
        invalid_draws: draws that made no valid setting; ``last_invalid`` says why the last did not.

    Raises:
        ConfigError: the sampler cannot serve the space.
    """

    def __init__(
        self, book: Book, pool: Pool, space: SearchSpace, cost: CostOf, sampler: str | None, seed: int
    ) -> None:
        self.book, self.pool, self._cost, self._space, self._seed = book, pool, cost, space, seed
        self.waiting: list[Asked] = []
        self.invalid_draws, self.last_invalid = 0, ""
        self._more: list[tuple[dict[str, Any], Setting]] = []  # beyond the pool
        self._exhausted = False
        self._trained: dict[str, Setting] = {}  # by their keys
        self._when: dict[str, Quarters] = {}  # by keys, too
        name, facts = sampler or space.sampler, Facts([], False)
        if name != Tpe.name:
            self._candidates = self._compared()
            facts = Facts([self._candidates.of(one) for one in pool.settings], pool.complete)
        self.sampler = make_sampler(name, facts, seed, space=str(space.file))

    def draw(self) -> Asked | None:
        """A setting that is not known, from Optuna if it has one in a few tries, else at random."""
        at_random = islice(self._random_draws(), SAMPLER_TRIES)
        for params in chain(repeat({}, SAMPLER_TRIES), at_random):
            if (asked := self._ask_optuna(params)) is not None:
                return asked
        return None

    def settings(self) -> list[Setting]:
        """The settings of the pool that may still begin; of a wider draw where none is left of it."""
        left = [setting for _, setting in self._unknown()]
        if not left and not self._exhausted:
            self._seed += 1
            found = {setting.key: (params, setting) for params, setting in self._valid(self._seed)}
            self._more += [pair for key, pair in found.items() if key not in self.book.lines]
            left = [setting for _, setting in self._unknown()]
            self._exhausted = not left
        return left

    def choose(
        self, among: Collection[str], running: Iterable[Setting], have: Collection[str]
    ) -> Asked | None:
        """What the sampler chooses.

        Args:
            among: keys of the pool's settings that may begin now.
            running: settings that are being trained.
            have: states at which a training can begin.
        """
        pairs = [pair for pair in self._unknown() if pair[1].key in among]
        told = self._told()
        pool = [self._candidates.of(setting) for _, setting in pairs]
        at_work = [self._candidates.of(setting) for setting in running]
        place = self.sampler.next(pool, told, at_work, have)
        return None if place is None else self._ask_optuna(pairs[place][0])

    def left(self) -> list[Setting]:
        """The settings that may still begin, or begin again since they failed, as far as they are known:
        those that wait, and the pool's.
        """
        waiting = [asked.setting for asked in self.waiting]
        known = {*self.book.begun_well(), *(setting.key for setting in waiting)}
        return [*waiting, *(setting for setting in self.pool.settings if setting.key not in known)]

    def _told(self) -> list[Told]:
        points = self.book.points()
        if new := {key: setting for key, (setting, _) in points.items() if key not in self._trained}:
            self._trained |= new
            self._candidates = self._compared()
        return [Told(self._candidates.of(setting), *point) for setting, point in points.values()]

    def _compared(self) -> Candidates:
        """Candidates on a scale that holds all there are."""
        settings = self.book.settings
        baselines = map(settings.make, self._space.baselines)
        known = [*self.pool.settings, *baselines, *self._trained.values()]
        return Candidates(settings, known, self._cost, self._when)

    def _unknown(self) -> list[tuple[dict[str, Any], Setting]]:
        return [pair for pair in (*self.pool.drawn, *self._more) if not self._is_known(pair[1])]

    def _ask_optuna(self, params: dict[str, Any]) -> Asked | None:
        """Open a row for what the space draws; None if its setting is known or not valid (the row is then
        closed and says why).
        """
        study = self.book.optuna
        if params:
            study.enqueue_trial(params)
        trial = study.ask()
        row = trial.number
        try:
            setting = self.pool.setting(trial)
        except DbfRayError as error:
            self._note_invalid(error)
            self.book.fail(row, str(error))
            if isinstance(error, DrawError):
                raise
            return None
        self.book.note(row, "setting", setting.facts())
        if self._is_known(setting):
            self.book.close_duplicate(row, self.book.lines.get(setting.key))
            return None
        self.book.lines[setting.key] = row
        return Asked(setting, row)

    def _random_draws(self) -> Iterator[dict[str, Any]]:
        """Parameters of settings that are not known: those of the pool, then drawn at random; ends after
        RANDOM_TRIES draws.
        """
        for params, setting in self.pool.drawn:
            if not self._is_known(setting):
                yield params
        self._seed += 1
        for params, drawn in self._valid(self._seed):
            if not self._is_known(drawn):
                yield params

    def _valid(self, seed: int) -> Iterator[tuple[dict[str, Any], Setting]]:
        for params, drawn in islice(self.pool.draw(seed), RANDOM_TRIES):
            if isinstance(drawn, DbfRayError):
                self._note_invalid(drawn)
            else:
                yield params, drawn

    def _is_known(self, setting: Setting) -> bool:
        return setting.key in self.book.lines or any(
            setting.key == asked.setting.key for asked in self.waiting
        )

    def _note_invalid(self, error: DbfRayError) -> None:
        if not isinstance(error, NotAllowedError):
            self.invalid_draws, self.last_invalid = self.invalid_draws + 1, str(error)
