"""A training of two workers that has joined a cluster whose nodes are lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.faults.cluster import RayCluster, ray_cluster
from tests.faults.place import Place, Started, epochs_of, trained, until
from tests.faults.proofs import again, noticed, whole_and_same
from tests.faults.rows import Cost, fault
from tests.faults.workers import RANK
from tests.tiny import as_options


def job(cluster: RayCluster, keys: dict[str, Any]) -> Started:
    """The command that joins it."""
    return cluster.place.start("jobs.train", *as_options(keys), environment=cluster.environment)


def joined(cluster: RayCluster, name: str, **changes: Any) -> tuple[dict[str, Any], Path, Started]:
    """A training that has joined it and has two epochs: its keys, folder and process."""
    storage = str(cluster.place.folder / "storage")
    keys = cluster.place.training(
        name, cluster__workers=2, cluster__address=cluster.address, cluster__storage=storage, **changes
    )
    started = job(cluster, keys)
    trained(cluster.place.run_folder(name), 2, started)
    return keys, cluster.place.run_folder(name), started


def goes_on(cluster: RayCluster, keys: dict[str, Any], started: Started, known: int, begin: float) -> Cost:
    """What had so many epochs then comes to its end, with all proofs."""
    folder = cluster.place.run_folder(keys["name"])
    trained(folder, known + 1, started)
    seconds = time.monotonic() - begin
    started.ends()
    whole_and_same(cluster.place, keys)
    cluster.has_nothing_running()
    return Cost(seconds, again(folder, known))


@fault(
    "node", "a node with one of two workers, another one added: kill -9", "after 2 of 8 epochs", "Ray Train"
)
def lose_a_node(place: Place) -> Cost:
    with ray_cluster(place) as cluster:
        keys, folder, started = joined(cluster, "node")
        relay = [cluster.node_of(process) for process in cluster.named("WorkerRelay")]
        nodes = [cluster.node_of(rank) for rank in cluster.named(RANK)]
        cluster.lose(next(node for node in nodes if node not in relay))
        known, begin = epochs_of(folder), time.monotonic()
        cluster.add()
        return goes_on(cluster, keys, started, known, begin)


@fault("joined", "the driver of two workers on a cluster: kill -9", "after 2 of 8 epochs")
def kill_a_joined_driver(place: Place) -> Cost:
    with ray_cluster(place) as cluster:
        keys, folder, started = joined(cluster, "joined")
        started.killed()
        cluster.has_nothing_running()
        noticed(place, folder, "FAILED")
        known, begin = epochs_of(folder), time.monotonic()
        return goes_on(cluster, keys, job(cluster, keys), known, begin)


@fault("head", "the head, and so the cluster and the driver, a new one made: kill -9", "after 2 of 8 epochs")
def lose_the_head(place: Place) -> Cost:
    with ray_cluster(place) as cluster:
        keys, folder, started = joined(cluster, "head")
        for node in list(cluster.nodes):
            cluster.lose(node)
        until(lambda: started.process.poll() is not None)
        assert started.process.returncode != 0
        assert "the same command" in started.said().strip().splitlines()[-1], started.said()
        noticed(place, folder, "FAILED")
        known = epochs_of(folder)
    with ray_cluster(place) as other:
        keys, begin = keys | {"cluster.address": other.address}, time.monotonic()
        return goes_on(other, keys, job(other, keys), known, begin)
