"""Progress of a long training, as lines a person can watch or grep."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from dbf_ray.progress import duration


class Progress:
    """Prints at most one line every ``interval`` seconds and one at each epoch's end; silent on ranks other
    than 0.

    Args:
        epochs: E.
        num_stages: K.
        stream: where to print; None: stderr. Pass ``quiet=True`` to print nothing.
        interval: seconds between lines within an epoch.
    """

    def __init__(
        self,
        epochs: int,
        num_stages: int,
        stream: TextIO | None = None,
        interval: float = 15.0,
        label: str = "",
        quiet: bool = False,
    ) -> None:
        self.epochs, self.num_stages, self.interval, self.label, self.quiet = (
            epochs,
            num_stages,
            interval,
            label,
            quiet,
        )
        self.stream = stream or sys.stderr
        self._printed = time.perf_counter()
        self._begun = self._printed
        self._done_before = 0.0

    def begin(self, epochs_done: int) -> None:
        """Training starts, or resumes after ``epochs_done`` epochs."""
        self._begun = self._printed = time.perf_counter()
        self._done_before = float(epochs_done)

    def note(self, text: str) -> None:
        """A line about the training as a whole."""
        self._say(text)

    def step(
        self, epoch: int, prefix: int, step: int, steps: int, images_per_second: float, loss: float
    ) -> None:
        """An optimizer step is done; ``step`` counts from 1 within the epoch."""
        now = time.perf_counter()
        if now - self._printed < self.interval:
            return
        self._printed = now
        self._say(
            f"epoch {epoch + 1}/{self.epochs} · frozen {prefix}/{self.num_stages} · step {step}/{steps} · "
            f"{images_per_second:.1f} img/s · loss {loss:.3f} · {self._left(epoch + step / steps)} left"
        )

    def epoch(self, epoch: int, prefix: int, loss: float, map50: float | None, seconds: float) -> None:
        """An epoch is done and, if ``map50`` is given, evaluated."""
        self._printed = time.perf_counter()
        score = "" if map50 is None else f" · map50 {map50:.3f}" if map50 == map50 else " · map50 none"
        self._say(
            f"epoch {epoch + 1}/{self.epochs} · frozen {prefix}/{self.num_stages} · loss {loss:.3f}{score} · "
            f"{seconds:.0f} s · {self._left(epoch + 1)} left"
        )

    def _left(self, done: float) -> str:
        share = done - self._done_before
        if share <= 0:
            return "?"
        return duration((time.perf_counter() - self._begun) / share * (self.epochs - done))

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(f"{self.label}{text}", file=self.stream, flush=True)
