"""Which setting is tried next: what Optuna draws, and where that is known already, what chance does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice, repeat
from typing import Any

from dbf_ray.errors import DbfRayError
from dbf_ray.search.book import Asked, Book
from dbf_ray.search.draws import Draws
from dbf_ray.search.pool import Pool
from dbf_ray.search.settings import Setting, Settings
from dbf_ray.search.spaces import DrawError

SAMPLER_TRIES = 10  # suggestions of the sampler that may be known before random ones are looked through
RANDOM_TRIES = 500  # random ones that may be known before the space counts as exhausted


class Choosing:
    """Draws settings that the book does not know.

    Attributes:
        waiting: settings that were drawn, or are trained whatever is drawn, and have not begun.
        invalid_draws: draws that made no valid setting; ``last_invalid`` says why the last did not.
    """

    def __init__(self, book: Book, draws: Draws, pool: Pool, settings: Settings, seed: int) -> None:
        self.book, self.pool = book, pool
        self._draws, self._settings, self._seed = draws, settings, seed
        self.waiting: list[Asked] = []
        self.invalid_draws, self.last_invalid = 0, ""

    def draw(self) -> Asked | None:
        """A setting that is not known, from the sampler if it has one in a few tries, else at random."""
        at_random = islice(self._random_draws(), SAMPLER_TRIES)
        for params in chain(repeat({}, SAMPLER_TRIES), at_random):
            if (asked := self._ask_optuna(params)) is not None:
                return asked
        return None

    def left(self) -> list[Setting]:
        """The settings that may still begin, as far as they are known: those that wait, and the pool's."""
        waiting = [asked.setting for asked in self.waiting]
        known = {*self.book.numbers, *(setting.key for setting in waiting)}
        return [*waiting, *(setting for setting in self.pool.settings if setting.key not in known)]

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
            setting = self._settings.make(self._draws.overrides(trial, self._settings.config))
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
        for params, drawn in islice(self.pool.draw(self._seed), RANDOM_TRIES):
            if isinstance(drawn, DbfRayError):
                self._note_invalid(drawn)
            elif not self._is_known(drawn):
                yield params

    def _is_known(self, setting: Setting) -> bool:
        return setting.key in self.book.lines or any(
            setting.key == asked.setting.key for asked in self.waiting
        )

    def _note_invalid(self, error: DbfRayError) -> None:
        self.invalid_draws, self.last_invalid = self.invalid_draws + 1, str(error)
