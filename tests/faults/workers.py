"""A training of two workers (gloo) under Ray Train, on a Ray of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.tracking import read_epochs, read_summary
from tests.faults.place import Place, Started, epochs_of, kill, trained, until
from tests.faults.processes import finished
from tests.faults.proofs import again, every_epoch_once, in_mlflow, noticed, undisturbed, whole_and_same
from tests.faults.rows import Cost, fault

RANK = "RayTrainWorker"


def two_workers(place: Place, name: str) -> tuple[dict[str, Any], Path, Started]:
    """One that has trained two epochs: its keys, folder and process."""
    keys = place.training(name, cluster__workers=2)
    started = place.train(keys)
    trained(place.run_folder(name), 2, started)
    return keys, place.run_folder(name), started


def kill_ranks(place: Place, name: str, count: int) -> Cost:
    keys, folder, started = two_workers(place, name)
    ranks = started.named(RANK)
    assert len(ranks) == 2
    for rank in ranks[:count]:
        kill(rank)
    begin, known = time.monotonic(), epochs_of(folder)
    until(lambda: len(started.named(RANK)) == 2 and not set(started.named(RANK)) & set(ranks), started)
    trained(folder, known + 1, started)
    seconds = time.monotonic() - begin
    started.ends()
    whole_and_same(place, keys)
    return Cost(seconds, again(folder, known))


@fault("rank", "one of two workers: kill -9", "after 2 of 8 epochs", "Ray Train")
def kill_a_rank(place: Place) -> Cost:
    return kill_ranks(place, "rank", 1)


@fault("ranks", "both of two workers: kill -9", "after 2 of 8 epochs", "Ray Train")
def kill_all_ranks(place: Place) -> Cost:
    return kill_ranks(place, "ranks", 2)


@fault("driver", "the driver of two workers, with its own Ray: kill -9", "after 2 of 8 epochs")
def kill_the_driver(place: Place) -> Cost:
    keys, folder, started = two_workers(place, "driver")
    started.killed()
    started.leaves_nothing(60.0)
    noticed(place, folder, "FAILED")
    return finished(place, keys, epochs_of(folder))


@fault("fewer", "the driver of two workers: kill -9; one worker goes on", "after 2 of 8 epochs")
def go_on_with_one_worker(place: Place) -> Cost:
    keys, folder, started = two_workers(place, "fewer")
    started.killed()
    started.leaves_nothing(60.0)
    known, begin = epochs_of(folder), time.monotonic()
    started = place.train(keys | {"cluster.workers": 1})
    trained(folder, known + 1, started)
    seconds = time.monotonic() - begin
    started.ends()
    every_epoch_once(folder, keys["training.epochs"])
    in_mlflow(place, folder)
    assert {record["world_size"] for record in read_summary(folder)["pieces"]} == {1, 2}
    whole = read_epochs(undisturbed(place, keys))
    losses = [[record["loss"] for record in records] for records in (read_epochs(folder), whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    return Cost(seconds, again(folder, known))
