"""What fits on a cluster of several nodes, without Ray."""

from __future__ import annotations

from typing import Any

import pytest

from dbf_ray.cluster import ray_runtime
from dbf_ray.cluster.ray_runtime import Resources, available_resources, require
from dbf_ray.errors import ResourceError

PAIR = Resources(8, 2, "the Ray cluster", ((4, 2), (4, 0)))


def test_a_worker_is_placed_whole_on_one_node():
    require(2, 4, False, PAIR)
    with pytest.raises(
        ResourceError,
        match=r"each worker needs 5 CPUs of one node, but the nodes of the Ray cluster \(4 CPUs\) hold 0 of "
        r"1 wor",
    ):
        require(1, 5, False, PAIR)
    with pytest.raises(
        ResourceError,
        match=r"3 CPUs and a GPU of one node, .*\(4 CPUs and 0 GPUs, 4 CPUs and 2 GPUs\) hold 1 of 2 workers",
    ):
        require(2, 3, True, PAIR)


def test_slots_are_counted_on_each_node():
    assert PAIR.slots(3, False) == 2
    assert PAIR.slots(1, True) == 2
    assert Resources(8, 2, "this machine").slots(3, False) == 2
    assert Resources(8, 2, "this machine").slots(3, True) == 2


def test_a_joined_cluster_is_counted_by_its_living_nodes(monkeypatch):
    nodes: list[dict[str, Any]] = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0, "memory": 1.0}},
        {"Alive": False, "Resources": {}},
        {"Alive": True, "Resources": {"CPU": 4.0}},
    ]
    monkeypatch.setattr(ray_runtime.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_runtime.ray, "nodes", lambda: nodes)
    assert available_resources() == PAIR


def test_one_worker_is_refused_in_words_for_one():
    with pytest.raises(
        ResourceError, match=r"^1 worker needs 64 CPUs, but the Ray cluster has 8; lower --cl"
    ):
        require(1, 64, True, PAIR)
    with pytest.raises(
        ResourceError, match=r"^1 worker needs 1 GPU, but here has 0; set --cluster.gpu false$"
    ):
        require(1, 1, True, Resources(8, 0, "here"))
