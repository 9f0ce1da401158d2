"""Trainings on a cluster that lose the relay of their lines, or wait for a node."""

from __future__ import annotations

import re
import time

from tests.faults.cluster import ray_cluster
from tests.faults.nodes import goes_on, job, joined
from tests.faults.place import Place, epochs_of, kill, trained, until
from tests.faults.proofs import noticed
from tests.faults.rows import Cost, fault
from tests.faults.searches import search_options, whole_search
from tests.faults.workers import RANK
from tests.tiny import as_options

LINE = r"waiting for (1 x 1 CPU|2 x 1 CPU) since \d\d:\d\d:\d\d\n"


@fault(
    "relay", "the actor that carries lines of progress, then a worker: kill -9", "after 2 of 8 epochs", "Ray"
)
def lose_the_relay(place: Place) -> Cost:
    with ray_cluster(place) as cluster:
        keys, folder, started = joined(cluster, "relay")
        (relay,) = cluster.named("WorkerRelay")
        assert cluster.node_of(relay) is cluster.nodes[0]  # the driver's
        kill(relay)
        known, begin = epochs_of(folder), time.monotonic()
        kill(cluster.named(RANK)[0])
        return goes_on(cluster, keys, started, known, begin)


@fault(
    "late",
    "a node with one of two workers, another one 25 s later: kill -9",
    "after 2 of 8 epochs",
    "Ray Train",
)
def wait_for_a_node(place: Place) -> Cost:
    with ray_cluster(place) as cluster:
        keys, folder, started = joined(cluster, "late")
        cluster.lose(cluster.node_of(cluster.named(RANK)[0]))
        known, begin = epochs_of(folder), time.monotonic()
        until(lambda: re.search(LINE, started.said()), started)
        cluster.add()
        return goes_on(cluster, keys, started, known, begin)


@fault("one", "the only worker of a job on a cluster: kill -9", "after 2 of 8 epochs", "Ray Train")
def lose_the_only_worker(place: Place) -> Cost:
    with ray_cluster(place, nodes=1) as cluster:
        storage = str(place.folder / "storage")
        keys, environment = place.training("one"), cluster.environment | {"RAY_ADDRESS": cluster.address}
        too_much = keys | {"cluster.cpus_per_worker": 64, "cluster.gpu": "true"}
        refused = place.start("jobs.train", *as_options(too_much), environment=environment)
        refused.ends(2)
        assert "1 worker needs 64 CPUs, but the Ray cluster has 1; lower" in refused.said()
        keys |= {"cluster.storage": storage}
        folder = place.run_folder("one")
        started = place.start("jobs.train", *as_options(keys), environment=environment)
        trained(folder, 2, started)
        (worker,) = cluster.named(RANK)
        assert cluster.node_of(worker) is cluster.nodes[1]
        kill(worker)
        known, begin = epochs_of(folder), time.monotonic()
        return goes_on(cluster, keys, started, known, begin)


@fault(
    "never",
    "a node with one of two workers, for longer than it is waited for: kill -9",
    "after 2 of 8 epochs",
)
def give_up_a_node(place: Place) -> Cost:
    with ray_cluster(place) as cluster:
        keys, folder, started = joined(cluster, "never", cluster__wait_minutes=0.4)
        cluster.lose(cluster.node_of(cluster.named(RANK)[0]))
        started.ends(2)
        assert re.search(LINE, started.said())
        last = started.said().strip().splitlines()[-1]
        assert "did not become free in 0.4 minutes, since" in last, last
        assert "the Ray cluster has 1 CPUs" in last, last
        assert "the same command goes on" in last, last
        cluster.has_nothing_running()
        noticed(place, folder, "FAILED")
        cluster.add()
        known, begin = epochs_of(folder), time.monotonic()
        return goes_on(cluster, keys, job(cluster, keys), known, begin)


@fault(
    "no-room", "the only node of a search, for longer than it is waited for: kill -9", "in its second trial"
)
def give_up_a_search(place: Place) -> Cost:
    with ray_cluster(place, nodes=1) as cluster:
        study = place.folder / "studies" / "no-room"
        more = ["--cluster.address", cluster.address, "--cluster.wait_minutes", "0.4"]
        arguments = ["jobs.search", *search_options(place, study.name), *more]
        started = place.start(*arguments, environment=cluster.environment)
        until(lambda: any((study / "trials").glob("1/checkpoints/epoch-*")), started)
        cluster.lose(cluster.nodes[-1])
        started.ends(2)
        assert re.search(f"study no-room: {LINE}", started.said()), started.said()
        last = started.said().strip().splitlines()[-1]
        assert "1 x 1 CPU did not become free in 0.4 minutes, since" in last, last
        assert "Traceback" not in started.said()
        cluster.has_nothing_running()
        cluster.add()
        trials, begin = study / "trials", time.monotonic()
        done = sum(map(epochs_of, trials.iterdir()))
        started = place.start(*arguments, environment=cluster.environment)
        until(lambda: sum(map(epochs_of, trials.iterdir())) > done, started)
        seconds = time.monotonic() - begin
        started.ends()
        whole_search(place, study)
        return Cost(seconds, "nothing")
