"""Random draws of a space: what there is to train, as far as chance finds it."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler

from dbf_ray.errors import ConfigError, DbfRayError
from dbf_ray.search.draws import Draws, Record
from dbf_ray.search.optuna_study import scratch_study
from dbf_ray.search.settings import Setting, Settings
from dbf_ray.search.spaces import DrawError, NotAllowedError

FIRST_TRIES = 50  # that may be invalid before the space is refused
MOST, MOST_DRAWS = 512, 2500  # settings of a pool, and draws for it,
STALE = range(150, 301)  # which is all there is after so many draws without a new one,
STALE_EACH = 8  # and so many for each that was found, within these bounds
SCRATCH = 64  # draws of one scratch study, since Optuna looks through all of them at each
BEGUN = 8  # kinds of runs that are checked for a pool; each takes as long as a run's check does


class Pool:
    """Settings that a space can draw.

    Args:
        draws: of the space.
        settings: makes settings out of what was drawn.
        seed: of the pool, which is the same each time.
        check: raises :class:`.spaces.NotAllowedError` for a setting that is to be left out.

    Attributes:
        complete: the pool is all there is, as far as chance can tell.
        distributions: of a setting's parameters, by its key.
    """

    def __init__(
        self,
        draws: Draws,
        settings: Settings,
        seed: int,
        check: Callable[[Setting], None] = lambda setting: None,
    ) -> None:
        self._draws, self._settings, self._seed, self._check = draws, settings, seed, check
        self.complete = False
        self.distributions: dict[str, dict[str, BaseDistribution]] = {}
        self._left_out: NotAllowedError | None = None
        self._made: dict[str, Setting] = {}

    def setting(self, trial: optuna.Trial) -> Setting:
        """The setting that the space makes of ``trial``.

        Raises:
            DbfRayError: it makes none, or one that is left out.
        """
        try:
            overrides = self._draws.overrides(trial, self._settings.config)
            drawn = json.dumps(overrides, sort_keys=True, default=repr)
            if drawn not in self._made:  # a discrete space draws each again and again
                self._made[drawn] = self._settings.make(overrides)
            setting = self._made[drawn]
            self._check(setting)
        except NotAllowedError as error:
            self._left_out = error
            raise
        return setting

    def draw(self, seed: int) -> Iterator[tuple[dict[str, Any], Setting | DbfRayError]]:
        """Random draws in a scratch study, without end: parameters, and the setting that they make or the
        reason why they make none.

        Raises:
            DrawError: the space draws what its study cannot keep.
        """
        sampler = RandomSampler(seed=seed)
        for place in itertools.count():
            if place % SCRATCH == 0:
                scratch = scratch_study(sampler)
            trial = scratch.ask()
            try:
                drawn: Setting | DbfRayError = self.setting(trial)
            except DrawError:
                raise
            except DbfRayError as error:
                drawn = error
            if isinstance(drawn, Setting):
                self.distributions.setdefault(drawn.key, dict(trial.distributions))
            yield dict(trial.params), drawn

    @property
    def settings(self) -> list[Setting]:
        """Different settings, all that there are or some."""
        return [setting for _, setting in self.drawn]

    @functools.cached_property
    def drawn(self) -> list[tuple[dict[str, Any], Setting]]:
        """The same, each with the parameters that make it."""
        found: dict[str, tuple[dict[str, Any], Setting]] = {}
        last, begun = 0, self._settings.begun
        for place, (params, drawn) in enumerate(self.draw(self._seed)):
            if isinstance(drawn, Setting) and drawn.key not in found:
                found[drawn.key], last = (params, drawn), place
            self.complete = place - last > min(max(STALE[0], STALE_EACH * len(found)), STALE[-1])
            enough = len(found) == MOST or place + 1 == MOST_DRAWS
            if enough or self.complete or self._settings.begun - begun > BEGUN:
                break
        return list(found.values())

    def check(self, file: Any) -> Record:
        """Refuse a space (of ``file``) that has changed its distributions, and one that draws no valid
        setting in FIRST_TRIES tries: the search would train the baselines and then have nothing to do.
        Returns what is to be compared when the study goes on.
        """
        record, reason = self._draws.rehearse(self._settings.config), ""
        for _, drawn in islice(self.draw(self._seed), FIRST_TRIES):
            if not isinstance(drawn, DbfRayError):
                return record
            reason = str(drawn)
        if self._left_out is not None:  # few are allowed, or none
            if self.drawn:
                return record
            raise ConfigError(f"{file}: no setting of the space is left: {self._left_out}")
        raise ConfigError(
            f"{file}: space(trial) must draw valid settings, but none of {FIRST_TRIES} was; the last: "
            f"{reason}"
        )
