"""Which Ray is meant: decides whether one worker is placed by Ray."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from dbf_ray.api import wants_ray
from dbf_ray.cluster.address import on_cluster
from dbf_ray.config import Config, with_overrides


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delitem(sys.modules, "ray", raising=False)


def wants(**cluster: object) -> bool:
    return wants_ray(with_overrides(Config(), {f"cluster.{key}": value for key, value in cluster.items()}))


def test_one_worker_without_a_cluster_needs_no_ray_and_several_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not wants()
    assert not wants(address="local")
    assert wants(workers=2)
    assert wants(use_ray=True)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert not wants()


def test_on_a_cluster_ray_places_one_worker_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wants(address="10.0.0.1:6379")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")  # as in a submitted job
    assert wants()
    assert not wants(use_ray=False)


@pytest.mark.parametrize(
    ("connected", "mode", "wanted"), [(True, 0, True), (True, 1, False), (False, 0, False)]
)
def test_a_ray_that_is_connected_counts_and_a_task_of_it_has_its_place(
    connected: bool, mode: int, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = SimpleNamespace(global_worker=SimpleNamespace(mode=mode))
    fake = SimpleNamespace(
        is_initialized=lambda: connected, WORKER_MODE=1, _private=SimpleNamespace(worker=worker)
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    assert on_cluster() is wanted
