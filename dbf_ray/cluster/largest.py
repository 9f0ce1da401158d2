"""What a cluster may have once it has scaled up, where that can be found out.

Two places tell it: the cluster's own configuration, which some autoscalers give to the head, and the file
that ``ray up`` leaves on the head, where a submitted job runs. KubeRay's autoscaler gives it to nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ray._private.state import state

FILE = Path("~/ray_bootstrap_config.yaml")
MANY = 1000  # nodes of one kind, where there is no limit
Node = tuple[int, int]  # CPUs, GPUs


def largest() -> tuple[Node, ...]:
    """(CPUs, GPUs) of each node that the connected cluster may have; empty where it is not known."""
    with contextlib.suppress(Exception):  # a client's Ray cannot be asked
        if (config := state.get_cluster_config()) is not None:
            kinds = [
                (dict(kind.resources), MANY if kind.max_count < 0 else kind.max_count)
                for kind in config.node_group_configs
            ]
            return _nodes(kinds, MANY)
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError, AttributeError, TypeError):
        return _of_launcher(yaml.safe_load(FILE.expanduser().read_text(encoding="utf-8")))
    return ()


def _of_launcher(config: dict[str, Any]) -> tuple[Node, ...]:
    """Of the configuration that ``ray up`` was given, with what it has filled in."""
    head, limit = config.get("head_node_type"), int(config.get("max_workers", 2))
    kinds = [
        (kind.get("resources") or {}, 1 if name == head else int(kind.get("max_workers", limit)))
        for name, kind in config["available_node_types"].items()
    ]
    return _nodes(kinds, max(limit, 1))


def _nodes(kinds: list[tuple[dict[str, Any], int]], limit: int) -> tuple[Node, ...]:
    def each() -> Iterator[Node]:
        for has, count in kinds:
            node = (int(has.get("CPU", 0)), int(has.get("GPU", 0)))
            yield from [node] * min(count, limit) if any(node) else ()

    return tuple(each())
