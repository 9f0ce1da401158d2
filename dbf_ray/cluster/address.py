"""Which cluster is meant, without Ray: who trains alone on a machine need not wait for its import."""

from __future__ import annotations

import os
import sys


def cluster_address(address: str | None = None) -> str | None:
    """The cluster to join: the given one, else RAY_ADDRESS (set inside a Ray job), else None: start a local
    Ray.
    """
    chosen = (address or os.environ.get("RAY_ADDRESS") or "").strip()
    return None if chosen in ("", "local") else chosen


def on_cluster(address: str | None = None) -> bool:
    """Whether Ray is to place what runs: a cluster is named, or this is a program that has connected a Ray.

    A task or an actor of Ray's has its place already.
    """
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return bool(ray._private.worker.global_worker.mode != ray.WORKER_MODE)
    return cluster_address(address) is not None
