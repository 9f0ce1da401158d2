"""The actor that frees a training's placement group ends when it is done."""

from __future__ import annotations

import os

import pytest
from ray.train import ScalingConfig
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import placement_group_cleaner

from dbf_ray.cluster import trainer
from dbf_ray.cluster.trainer import Cleaner, CleanerCallback, Trainer


def test_it_ends_once_the_controller_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(placement_group_cleaner, "is_actor_alive", None)  # is put back in the end
    states = iter([{"State": "ALIVE"}, {"State": "DEAD"}])
    monkeypatch.setattr(trainer, "actors", lambda _: next(states))
    cleaner = Cleaner("a controller", 0.01, 1.0, 1.0)
    cleaner.start_monitoring()
    if (thread := cleaner._monitor_thread) is not None:
        thread.join(10)
    assert ended == [0]
    assert list(states) == []


def test_a_training_starts_that_one_and_no_other() -> None:
    callbacks = Trainer(print, scaling_config=ScalingConfig(num_workers=1))._create_default_callbacks()
    found = [type(one) for one in callbacks if isinstance(one, PlacementGroupCleanerCallback)]
    assert found == [CleanerCallback]
