"""A training of one worker in its own process, without Ray, that is killed."""

from __future__ import annotations

import time
from typing import Any

from tests.faults.place import Place, Started, epochs_of, trained
from tests.faults.proofs import again, noticed, whole_and_same
from tests.faults.rows import Cost, fault


def once_more(place: Place, keys: dict[str, Any], known: int) -> tuple[Started, float]:
    """The same command again; it, and the seconds until it had one epoch more."""
    begin = time.monotonic()
    started = place.train(keys)
    trained(place.run_folder(keys["name"]), known + 1, started)
    return started, time.monotonic() - begin


def finished(place: Place, keys: dict[str, Any], known: int) -> Cost:
    """The same command again, to its end, with all proofs."""
    started, seconds = once_more(place, keys, known)
    started.ends()
    whole_and_same(place, keys)
    return Cost(seconds, again(place.run_folder(keys["name"]), known))


@fault("process", "the process of a training with one worker: kill -9", "after 2 of 8 epochs")
def kill_the_process(place: Place) -> Cost:
    keys = place.training("process")
    folder = place.run_folder("process")
    started = place.train(keys)
    trained(folder, 2, started)
    started.killed()
    started.leaves_nothing()
    noticed(place, folder)
    return finished(place, keys, epochs_of(folder))
