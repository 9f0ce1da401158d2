"""Random draws of a space: what there is to train, as far as chance finds it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import islice
from typing import Any

import optuna
from optuna.samplers import RandomSampler

from dbf_ray.errors import ConfigError, DbfRayError
from dbf_ray.search.draws import Draws
from dbf_ray.search.settings import Setting, Settings
from dbf_ray.search.spaces import DrawError

FIRST_TRIES = 50  # that may be invalid before the space is refused
MOST = 512  # settings of a pool,
STALE = 150  # which is all there is after so many draws without a new one
BEGUN = 8  # kinds of runs that are checked for a pool; each takes as long as a run's check does


class Pool:
    """Settings that a space can draw.

    Args:
        draws: of the space.
        settings: makes settings out of what was drawn.
        seed: of the pool, which is the same each time.
    """

    def __init__(self, draws: Draws, settings: Settings, seed: int) -> None:
        self._draws, self._settings, self._seed = draws, settings, seed

    def draw(self, seed: int) -> Iterator[tuple[dict[str, Any], Setting | DbfRayError]]:
        """Random draws in a scratch study, without end: parameters, and the setting that they make or the
        reason why they make none.

        Raises:
            DrawError: the space draws what its study cannot keep.
        """
        scratch = optuna.create_study(directions=["maximize", "minimize"], sampler=RandomSampler(seed=seed))
        while True:
            trial = scratch.ask()
            try:
                drawn: Setting | DbfRayError = self._settings.make(
                    self._draws.overrides(trial, self._settings.config)
                )
            except DrawError:
                raise
            except DbfRayError as error:
                drawn = error
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
            if len(found) == MOST or place - last > STALE or self._settings.begun - begun > BEGUN:
                break
        return list(found.values())

    def check(self, file: Any) -> None:
        """Refuse a space (of ``file``) that has changed its choices, and one that draws no valid setting in
        FIRST_TRIES tries: the search would train the baselines and then have nothing to do.
        """
        self._draws.rehearse(self._settings.config)
        reason = ""
        for _, drawn in islice(self.draw(self._seed), FIRST_TRIES):
            if not isinstance(drawn, DbfRayError):
                return
            reason = str(drawn)
        raise ConfigError(
            f"{file}: space(trial) must draw valid settings, but none of {FIRST_TRIES} was; the last: "
            f"{reason}"
        )
