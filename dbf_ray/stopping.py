"""Being asked to stop: by SIGTERM, which schedulers and spot machines send before they kill, or by Ctrl-C.

A command ends where it is, by :class:`Stopped`. What has to end in order, a training after its step,
holds that back (:func:`holding`) and asks :func:`check` where it may end. A second signal ends it at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """Somebody asked the process to stop; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


class _Asked:
    """What this process was asked, and how many hold the answer back."""

    number: int | None = None
    holding = 0
    heeding = 0


def asked() -> int | None:
    """The signal's number if this process was asked to stop, else None."""
    return _Asked.number


def ask(number: int) -> None:
    """Ask this process to stop, at its next :func:`check`."""
    _Asked.number = _Asked.number or number


def insist() -> None:
    """End what holds a signal back, as another signal would; from any thread."""
    if _Asked.number is not None and _Asked.heeding:
        os.kill(os.getpid(), _Asked.number)


def check() -> None:
    """End here if that was asked.

    Raises:
        Stopped: it was.
    """
    if _Asked.number is not None:
        raise Stopped(_Asked.number)


@contextlib.contextmanager
def holding() -> Iterator[None]:
    """Within, a first signal is noted and nothing more."""
    _Asked.holding += 1
    try:
        yield
    finally:
        _Asked.holding -= 1


@contextlib.contextmanager
def fresh() -> Iterator[None]:
    """Within, nothing is asked yet; nor is it afterwards: for a process that does one task after another."""
    _Asked.number = None
    try:
        yield
    finally:
        _Asked.number = None


@contextlib.contextmanager
def heeding() -> Iterator[None]:
    """Within, signals are requests to stop. In a thread beside the main one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with fresh():
        _Asked.heeding += 1
        heed_again()
        try:
            yield
        finally:
            _Asked.heeding -= 1
            for number, handler in before.items():
                signal.signal(number, handler)


def heed_again() -> None:
    """Take the signals back from a library that has set handlers of its own; nothing outside of
    :func:`heeding`.
    """
    if not _Asked.heeding or threading.current_thread() is not threading.main_thread():
        return
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked process, which is none of the command's
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        again = _Asked.number is not None
        ask(number)
        if again or not _Asked.holding:
            check()

    for number in SIGNALS:
        signal.signal(number, handle)
