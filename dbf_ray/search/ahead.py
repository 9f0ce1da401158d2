"""How long settings would train and what memory they would need, by steps that were timed: of a forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from dbf_ray.cost import Stretch
from dbf_ray.plan.stage_times import StageTimes
from dbf_ray.search.cost import planned
from dbf_ray.search.settings import Setting, Settings
from dbf_ray.search.timing import Timer, Timings


class Ahead:
    """What the study in ``folder`` timed, and for what it did not ``timer``; nothing is written.

    A policy that decides while it trains counts as one that never freezes: it takes no longer.
    """

    def __init__(self, settings: Settings, folder: Path, timer: Timer | None) -> None:
        self._settings, self._timings, self._timer = settings, Timings(folder), timer

    def seconds(self, chosen: Sequence[Setting], begun: Sequence[int]) -> float | None:
        """Of the epochs that settings train, the first of which are shared, with their evaluations."""
        found = [self._seconds(setting, first) for setting, first in zip(chosen, begun, strict=True)]
        return None if None in found else sum(seconds for seconds in found if seconds is not None)

    def memory(self, chosen: Sequence[Setting]) -> int | None:
        """Bytes of tensors, the most in a step of any of them."""
        found = [(self._times(setting), self._parts(setting)) for setting in chosen]
        return max((times.memory(parts) for times, parts in found if times is not None), default=None)

    def _seconds(self, setting: Setting, first: int) -> float | None:
        times = self._times(setting)
        if times is None:
            return None
        config, epochs = setting.config, len(setting.states) - 1
        every, workers = config.evaluation.every, config.cluster.workers
        steps = self._settings.beginning(config).horizon.all_steps // epochs
        evaluations = math.ceil(epochs / every) - first // every
        return times.training_seconds(after(self._parts(setting), first * steps), evaluations, workers)

    def _times(self, setting: Setting) -> StageTimes | None:
        if self._timer is not None and self._timings.times(setting.config) is None:
            self._timings.add(setting.config, self._timer(setting.config))
        return self._timings.times(setting.config)

    def _parts(self, setting: Setting) -> list[Stretch]:
        beginning = self._settings.beginning(setting.config)
        horizon = beginning.horizon
        return planned(setting.config, beginning) or [Stretch(horizon.always_frozen, horizon.all_steps)]


def after(parts: Sequence[Stretch], steps: int) -> list[Stretch]:
    """What is left of stretches after so many steps."""
    left = []
    for part in parts:
        done = min(steps, part.steps)
        steps -= done
        if done < part.steps:
            left.append(Stretch(part.prefix, part.steps - done, part.hits))
    return left
