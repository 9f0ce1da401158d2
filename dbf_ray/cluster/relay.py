"""A relay: a small Ray actor between the workers and the person's process.

It carries two things. *Lines* that rank 0 prints, so that a person sees the training's progress and not Ray's
own log. And the *reason* why going on makes no sense: Ray Train restarts its workers after any error, which
is right for a killed process and useless for a loss that is not finite or an image that cannot be read. A
worker that meets such an error pins it; restarted workers look first and return at once.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

import ray

from dbf_ray import errors
from dbf_ray.errors import DbfRayError, TrainingError

POLL_SECONDS = 0.5


class WorkerRelay:
    """Keeps the first reason and all lines; runs as an actor without a CPU of its own."""

    def __init__(self) -> None:
        self._notice: dict[str, str] | None = None
        self._lines: list[str] = []

    def pin(self, notice: dict[str, str]) -> None:
        """Keep ``notice`` unless there is one already."""
        self._notice = self._notice or notice

    def read(self) -> dict[str, str] | None:
        """The notice, or None."""
        return self._notice

    def say(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)

    def lines(self, known: int) -> list[str]:
        """The lines after the first ``known`` ones."""
        return self._lines[known:]


def make_relay() -> Any:
    """A handle to a new relay; it lives as long as somebody holds the handle."""
    return ray.remote(num_cpus=0)(WorkerRelay).remote()


def notice_of(error: DbfRayError) -> dict[str, str]:
    """The error as plain text that any process can read."""
    return {"kind": type(error).__name__, "message": str(error)}


def error_of(notice: dict[str, str]) -> DbfRayError:
    """The inverse of :func:`notice_of`; an error class that is not known here becomes a TrainingError."""
    kind = getattr(errors, notice["kind"], TrainingError)
    is_ours = isinstance(kind, type) and issubclass(kind, DbfRayError)
    made: DbfRayError = kind(notice["message"]) if is_ours else TrainingError(notice["message"])
    return made


@contextlib.contextmanager
def speaking(relay: Any) -> Iterator[None]:
    """In a worker: everything printed goes to the relay, line by line."""
    stream = _Lines(relay)
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield


@contextlib.contextmanager
def listening(relay: Any) -> Iterator[None]:
    """In the person's process: print the relay's lines to stderr as they come."""
    done = threading.Event()

    def listen() -> None:
        known = 0
        ended = False
        while not ended:
            ended = done.wait(POLL_SECONDS)  # one more look after the end
            with contextlib.suppress(ray.exceptions.RayError):
                lines = ray.get(relay.lines.remote(known), timeout=10)
                known += len(lines)
                for line in lines:
                    print(line, file=sys.stderr, flush=True)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(15)


class _Lines(io.TextIOBase):
    def __init__(self, relay: Any) -> None:
        self._relay = relay
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._relay.say.remote(line)
        return len(text)
