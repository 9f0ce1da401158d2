"""A relay: a small Ray actor between the workers and the person's process.

It carries three things. *Lines* that rank 0 prints, so that a person sees the training's progress and not
Ray's own log. That the driver was asked to *stop* (:mod:`.stop`). And the *reason* why going on makes no
sense: Ray Train restarts its workers after any error, which is right for a killed process and useless for a
loss that is not finite or an image that cannot be read. A worker that meets such an error pins it; restarted
workers look first and return at once.

It lives on the node of the process that made it, and is started again where it dies. A relay that is lost
costs lines of progress, and nothing else: no call to it raises, an error that was pinned comes again, and a
stop is asked again and again.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dbf_ray import errors
from dbf_ray.errors import DbfRayError, TrainingError

POLL_SECONDS = 0.5
ANSWER_SECONDS = 10.0  # for a relay that may be on its way to another node


class WorkerRelay:
    """Keeps the first reason, all lines and a stop; runs as an actor without a CPU of its own."""

    def __init__(self) -> None:
        self._notice: dict[str, str] | None = None
        self._lines: list[str] = []
        self._asked: int | None = None
        self._begun = False
        self._life = uuid.uuid4().hex

    def pin(self, notice: dict[str, str]) -> None:
        """Keep ``notice`` unless there is one already."""
        self._notice = self._notice or notice

    def read(self) -> dict[str, str] | None:
        """The notice, or None."""
        return self._notice

    def say(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)

    def lines(self, life: str, known: int) -> tuple[str, list[str]]:
        """The lines after the first ``known`` ones of ``life``, and which life this is: one that was started
        again has none of the lines before.
        """
        return self._life, self._lines[known if life == self._life else 0 :]

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
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(WorkerRelay).remote()


def pinned(relay: Any) -> dict[str, str] | None:
    """The notice that is pinned, None where there is none or the relay is lost."""
    with contextlib.suppress(ray.exceptions.RayError):
        notice: dict[str, str] | None = ray.get(relay.read.remote(), timeout=ANSWER_SECONDS)
        return notice
    return None


def pin(relay: Any, notice: dict[str, str]) -> None:
    """Pin ``notice``, if the relay is there."""
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(relay.pin.remote(notice), timeout=ANSWER_SECONDS)


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
        life, known = "", 0
        ended = False
        while not ended:
            ended = done.wait(POLL_SECONDS)  # one more look after the end
            with contextlib.suppress(ray.exceptions.RayError):
                now, lines = ray.get(relay.lines.remote(life, known), timeout=ANSWER_SECONDS)
                life, known = now, len(lines) + (known if now == life else 0)
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
            with contextlib.suppress(ray.exceptions.RayError):
                self._relay.say.remote(line)
        return len(text)
