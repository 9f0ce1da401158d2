"""A thread that delivers, so that a training never waits for a store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

RETRY = 30.0  # seconds until what failed is tried again unasked
STALLED = 15.0  # seconds without any progress, after which waiting makes no sense
LONGEST = 60.0  # seconds to wait in all


class Background:
    """Does ``work`` whenever woken, in a thread of its own; ``failed`` makes a line of what it raises. Once
    it has gone well, ``then`` is done, for which nobody waits.
    """

    def __init__(
        self,
        work: Callable[[], None],
        failed: Callable[[Exception], str],
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self._work, self._failed = work, failed
        self._then: Callable[[], None] | None = then
        self._woken = threading.Condition()
        self._asked = self._done = 0
        self._ended = False
        self._moved = time.monotonic()
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="dbf_ray-delivery", daemon=True)

    def wake(self) -> None:
        """There is something to do."""
        with self._woken:
            self._asked += 1
            self._woken.notify_all()
        if not self._thread.is_alive() and not self._ended:
            self._thread.start()

    def moved(self) -> None:
        """The work goes on: to be called by it."""
        self._moved = time.monotonic()

    def wait(self) -> bool:
        """Wait until all is done that was asked for, a bounded time; says whether it is."""
        begun = self._moved = time.monotonic()
        with self._woken:
            asked = self._asked
            while self._done < asked:
                now = time.monotonic()
                left = min(self._moved + STALLED, begun + LONGEST) - now
                if left <= 0:
                    return False
                self._woken.wait(min(left, 0.5))
            return self.failure is None

    def stop(self) -> None:
        """No more work is done."""
        with self._woken:
            self._ended = True
            self._woken.notify_all()

    def _run(self) -> None:
        while True:
            with self._woken:
                if self._asked == self._done and not self._ended:
                    self._woken.wait(RETRY if self.failure else None)
                if self._ended:
                    return
                asked = self._asked
            try:
                self._work()
                self.failure = None
            except Exception as error:  # whatever it is, it must not end a training
                self.failure = self._failed(error)
            with self._woken:
                self._done = asked
                self._woken.notify_all()
            if self.failure is None and self._then is not None:
                then, self._then = self._then, None
                then()
