"""How far a long walk over many things is, as lines a person can watch or grep."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Counter:
    """Counts things done and prints at most one line every ``interval`` seconds: how many of how many, how
    fast, and how long it will take.

    Args:
        total: things to do.
        things: what they are called, in the plural.
        stream: where to print; None: stderr.
        interval: seconds between lines.
    """

    def __init__(self, total: int, things: str, stream: TextIO | None = None, interval: float = 10.0) -> None:
        self.total, self.things, self.interval = total, things, interval
        self.stream = stream or sys.stderr
        self.done = 0
        self._begun = self._printed = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._begun

    def add(self, count: int = 1, note: str = "") -> None:
        """So many more are done; ``note`` is put at the line's end."""
        self.done += count
        now = time.perf_counter()
        if now - self._printed >= self.interval and self.done:
            self._printed = now
            speed = self.done / max(self.seconds, 1e-9)
            left = duration((self.total - self.done) / speed)
            print(
                f"{self.done}/{self.total} {self.things} · {speed:.1f}/s · {left} left{note}",
                file=self.stream,
                flush=True,
            )


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours, minutes and seconds."""
    whole = round(seconds)
    return (
        f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
        if whole >= 3600
        else f"{whole // 60}:{whole % 60:02d}"
    )


def print_line(line: str) -> None:
    """Say something to a person, on stderr."""
    print(line, file=sys.stderr, flush=True)
