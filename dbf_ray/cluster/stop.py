"""A stop that reaches the workers: the driver gets the signal, and they end after their step."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray

from dbf_ray import stopping

PATIENCE = 60.0  # seconds for a step and for telling trackers; then workers are ended wherever they are
POLL_SECONDS = 0.5
ANSWER_SECONDS = 10.0


@contextlib.contextmanager
def passing_on(relay: Any, give_up: Callable[[], None]) -> Iterator[None]:
    """In the driver: what this process is asked is asked of all that heed ``relay``.

    Args:
        relay: of the workers (:func:`.relay.make_relay`).
        give_up: ends what is awaited within; called where no worker has begun, or they have not ended in
            time.
    """
    done = threading.Event()

    def watch() -> None:
        since = None
        while not done.wait(POLL_SECONDS):
            if (number := stopping.asked()) is None:
                continue
            since = since or time.monotonic()
            begun = True  # a relay that is lost for a moment knows nothing
            with contextlib.suppress(ray.exceptions.RayError):
                begun = ray.get(relay.stop.remote(number), timeout=ANSWER_SECONDS)
            if not begun or time.monotonic() - since > PATIENCE:
                give_up()
                return

    with stopping.holding():
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(2 * ANSWER_SECONDS)


@contextlib.contextmanager
def heeding(relay: Any) -> Iterator[None]:
    """In a worker: what is asked of ``relay`` is asked of this process, within half a second."""
    done = threading.Event()

    def look(call: Any) -> None:
        with contextlib.suppress(ray.exceptions.RayError):
            if (number := ray.get(call.remote(), timeout=ANSWER_SECONDS)) is not None:
                stopping.ask(number)

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            look(relay.asked)

    with stopping.fresh():
        look(relay.begin)
        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            done.set()
