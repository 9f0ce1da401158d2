"""A relay: a small Ray actor between the workers and the person's process.

It carries three things. *Lines* that rank 0 prints, so that a person sees the training's progress and not
Ray's own log. That the driver was asked to *stop* (:mod:`.stop`). And the *reason* why going on makes no
sense: Ray Train restarts its workers after any error, which is right for a killed process and useless for a
loss that is not finite or an image that cannot be read. A worker that meets such an error pins it; restarted
workers look first and return at once.

It lives on the driver's node. Should its process die all the same, Ray starts another, and what is lost is
lines: a reason would be found again, and a stop is asked again and again.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dbf_ray import errors
from dbf_ray.errors import DbfRayError, TrainingError

POLL_SECONDS = 0.5


class WorkerRelay:
    """Keeps the first reason, all lines and a stop; runs as an actor without a CPU of its own."""

    def __init__(self) -> None:
        self._notice: dict[str, str] | None = None
        self._lines: list[str] = []
        self._asked: int | None = None
        self._begun = False

    def pin(self, notice: dict[str, str]) -> None:
        """Keep ``notice`` unless there is one already."""
        self._notice = self._notice or notice

    def read(self) -> dict[str, str] | None:
        """The notice, or None."""
        return self._notice

    def say(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)

    def lines(self, known: int) -> tuple[list[str], int]:
        """The lines after the first ``known`` ones, and how many there are; all, where that is fewer: this is
        one that was started anew.
        """
        return self._lines[known if known <= len(self._lines) else 0 :], len(self._lines)

    def stop(self, number: int) -> bool:
        """The driver was sent this signal; whether there is a worker that will hear of it."""
        self._asked = number
        return self._begun

    def begin(self) -> int | None:
        """A worker begins; the signal that the driver was sent, if it was."""
        self._begun = True
        return self._asked

    def asked(self) -> int | None:
        """The signal that the driver was sent, or None."""
        self._begun = True  # of one that was started anew
        return self._asked


def make_relay() -> Any:
    """A handle to a new relay on this process's node; it lives as long as somebody holds the handle."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    made = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(WorkerRelay)
    return made.remote()


def pinned(relay: Any) -> dict[str, str] | None:
    """The notice that was pinned; None if there is none, or the relay is lost with it."""
    with contextlib.suppress(ray.exceptions.RayError):
        notice: dict[str, str] | None = ray.get(relay.read.remote(), timeout=10)
        return notice
    return None


def pin(relay: Any, notice: dict[str, str]) -> None:
    """Pin a notice; one that cannot be pinned is found again by the next attempt."""
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(relay.pin.remote(notice), timeout=10)


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
                lines, known = ray.get(relay.lines.remote(known), timeout=10)
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
