"""What a study may spend beside a number of trials: trained epochs, and hours."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable


class Budget:
    """Of a study, over all calls. A trial begins if it would end within it; one that runs is never ended.

    Args:
        epochs: trained by all trials, those that failed too; None: as many as it takes.
        hours: of searching, on the clock; None: as many as it takes.
        trained: epochs that were trained before.
        seconds: for which the study was searched before.
        seconds_an_epoch: as earlier trials took; None: not known.
        clock: in seconds.
    """

    def __init__(
        self,
        epochs: int | None = None,
        hours: float | None = None,
        *,
        trained: int = 0,
        seconds: float = 0.0,
        seconds_an_epoch: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epochs, self.hours, self.trained = epochs, hours, trained
        self._before, self._clock, self._since = seconds, clock, clock()
        self._pace, self._timed = seconds_an_epoch, [0.0, 0]  # seconds and epochs of trials of this call
        self._running: dict[Hashable, tuple[int, int, float]] = {}  # epochs to train, trained; begun when
        self.stopped = False

    @property
    def seconds(self) -> float:
        """For which the study was searched, until now."""
        return self._before + self._clock() - self._since

    def fits(self, epochs: int) -> bool:
        """Whether a trial that trains so many epochs may begin."""
        if self.epochs is not None:
            coming = sum(to_train for to_train, _, _ in self._running.values())
            if self.trained + coming + epochs > self.epochs:
                return False
        if self.hours is None:
            return True
        return self.seconds + epochs * (self._seconds_an_epoch() or 0.0) <= self.hours * 3600

    def begin(self, number: Hashable, epochs: int) -> None:
        """A trial begins that trains so many epochs."""
        self._running[number] = epochs, 0, self._clock()

    def epoch(self, number: Hashable) -> None:
        """A running trial has trained an epoch."""
        if number in self._running:
            to_train, trained, since = self._running[number]
            self._running[number] = to_train, trained + 1, since

    def end(self, number: Hashable) -> None:
        """A trial has ended, however it did."""
        if number in self._running:
            _, trained, since = self._running.pop(number)
            self.trained += trained
            self._timed = [self._timed[0] + self._clock() - since, self._timed[1] + trained]

    def text(self) -> str:
        """The budget in words."""
        parts = [f"{self.epochs} epochs"] if self.epochs is not None else []
        parts += [f"{self.hours:g} hours"] if self.hours is not None else []
        return " and ".join(parts)

    def stopped_text(self) -> str:
        """That the study has stopped at it, and how it goes on."""
        return f"stopped at its budget of {self.text()}, {self.trained} trained; a larger one goes on"

    def _seconds_an_epoch(self) -> float | None:
        seconds, epochs = self._timed
        return seconds / epochs if epochs else self._pace
