"""A Ray cluster of several nodes on this machine, of ``ray start --block`` processes: one for each node, so
that a node can be killed with all that runs on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.faults.place import Place, Started, until
from tests.tracking.servers import free_port

RAYS_OWN = "_AutoscalingCoordinatorActor"  # one for a cluster, for all jobs, once one has asked for workers
LOOK = """
import json, sys
import ray
from ray._private.state import actors
ray.init(address=sys.argv[1], logging_level=60, log_to_driver=False)
alive = [actor["ActorClassName"] for actor in actors().values() if actor["State"] != "DEAD"]
groups = [group["state"] for group in ray.util.placement_group_table().values()]
free, all_there_is = ray.available_resources(), ray.cluster_resources()
print(json.dumps({
    "actors": alive,
    "groups": [state for state in groups if state != "REMOVED"],
    "nodes": sum(node["Alive"] for node in ray.nodes()),
    "taken": all_there_is.get("CPU", 0) - free.get("CPU", 0),
}))
"""


@dataclass
class RayCluster:
    """Nodes by the order in which they were started, the head first; ``more`` is for their environment."""

    place: Place
    port: int = field(default_factory=free_port)
    dashboard: int = field(default_factory=free_port)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="dbf", dir="/tmp")))
    nodes: list[Started] = field(default_factory=list)
    more: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What its nodes and whoever joins it need."""
        token = self.folder / "token"
        if not token.exists():
            token.write_text(secrets.token_hex(32))
            token.chmod(0o600)
        mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        return mode | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": ""} | self.more

    def add(self, cpus: int = 1, head: bool = False) -> Started:
        """Start a node and wait until the cluster has it."""
        ports = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
        where = ["--head", f"--port={self.port}", f"--temp-dir={self.folder}"] if head else []
        where += [f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1"] if head else []
        where += [] if head else [f"--address={self.address}"]
        arguments = [f"--{name}={free_port()}" for name in (*ports, "runtime-env-agent-port")]
        arguments += ["--block", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1"]
        arguments += [f"--object-store-memory={128 * 1024**2}", "--disable-usage-stats"]
        node = self.place.start(
            "ray.scripts.scripts", "start", *where, *arguments, environment=self.environment
        )
        self.nodes.append(node)
        wanted = sum(one.process.poll() is None for one in self.nodes)
        until(lambda: self.look().get("nodes") == wanted, node, 90)
        return node

    def look(self) -> dict[str, Any]:
        """Its actors and placement groups that live, alive nodes, and CPUs that are taken; empty where it
        does not answer.
        """
        done = subprocess.run(
            [sys.executable, "-c", LOOK, self.address],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
        return found

    def has_nothing_running(self, seconds: float = 30.0) -> None:
        """No actor, no placement group, no CPU that is taken, soon."""
        limit = time.monotonic() + seconds
        while found := self.look():
            actors = [name for name in found["actors"] if name != RAYS_OWN]
            if not (actors or found["groups"] or found["taken"]):
                return
            assert time.monotonic() < limit, f"left in the cluster: {found}"
            time.sleep(0.5)
        raise AssertionError("the cluster does not answer")

    def named(self, *words: str) -> list[psutil.Process]:
        """Processes of its nodes with one of these words."""
        return [process for node in self.nodes for process in node.named(*words)]

    def node_of(self, process: psutil.Process) -> Started:
        """The node on which a process runs."""
        return next(node for node in self.nodes if process in node.family())

    def lose(self, node: Started) -> None:
        """kill -9 of a node: of all its processes at once, as when a machine loses power."""
        node.cleared()
        self.nodes.remove(node)

    def end(self) -> None:
        """All nodes are lost, and nothing is left."""
        for node in list(self.nodes):
            self.lose(node)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def ray_cluster(place: Place, nodes: int = 2) -> Iterator[RayCluster]:
    """A head without CPUs and nodes with one each; all gone in the end."""
    cluster = RayCluster(place)
    try:
        cluster.add(0, True)
        for _ in range(nodes):
            cluster.add()
        yield cluster
    finally:
        cluster.end()
