"""What the ledger says of a frozen prefix: hits, bytes, seconds saved, and the wait for data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from dbf_ray.build import build_training, prepare
from dbf_ray.config import Config
from dbf_ray.cost import FlopTable
from dbf_ray.run import run, run_directory
from dbf_ray.tracking import read_epochs
from dbf_ray.training.loop import LoopState, run_epoch, train_step


def test_one_orientation_per_span_hits_in_all_but_its_first_epoch(narrow_run: Callable[..., Config]) -> None:
    config = narrow_run("run", **{"freezing.cache": "ram", "data.orientation_per": "span"})
    summary = run(config, quiet=True)
    rows = read_epochs(run_directory(config))
    assert [(row["cache_hits"], row["cache_misses"]) for row in rows] == [
        (0, 0),
        (0, 8),
        (8, 0),
        (0, 0),
        (0, 8),
        (8, 0),
    ]
    assert summary["expected_hit_rate"] == 0.5
    table = FlopTable(prepare(config).detector)
    frozen = table(64, 64, 4) * 8
    assert rows[1]["executed_flops"] == frozen
    assert (
        rows[2]["executed_flops"]
        == frozen - 8 * table.prefix_forward(64, 64, 4)
        == frozen - 8 * table.backbone_forward(64, 64)
    )
    features = 2 * sum(
        part.numel() for part in prepare(config).detector.backbone(torch.zeros(1, 3, 64, 64))[1:]
    )
    assert rows[2]["cache_bytes"] == 8 * features
    assert rows[3]["cache_bytes"] == 0  # the backbone moves, so nothing is kept
    assert (summary["cache_hits"], summary["cache_misses"], summary["cache_bytes"]) == (16, 16, 8 * features)
    assert summary["cache_seconds_saved"] == pytest.approx(sum(row["cache_seconds_saved"] for row in rows))
    assert (
        0
        <= rows[2]["data_wait_share"]
        == pytest.approx(rows[2]["data_wait_seconds"] / rows[2]["device_seconds"])
    )


class Clock:
    """Stands still but where it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def after(self, seconds: float, function: Callable[..., Any], each: bool = False) -> Callable[..., Any]:
        """The function, which takes so many seconds now, or so many for each of what it is called with."""

        def timed(given: Any, *more: Any) -> Any:
            self.now += seconds * (len(given) if each else 1)
            return function(given, *more)

        return timed


def test_seconds_saved_are_those_of_the_prefix_less_those_of_the_cache(
    narrow_run: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = build_training(
        prepare(narrow_run("run", **{"freezing.policy": "frozen", "freezing.cache": "ram"})), quiet=True
    )
    frozen, clock, told = training.frozen, Clock(), []
    assert frozen is not None
    assert frozen.cache is not None
    monkeypatch.setattr("dbf_ray.training.frozen.time", clock)
    monkeypatch.setattr(frozen, "_run", clock.after(3.0, frozen._run, each=True))
    monkeypatch.setattr(frozen.cache, "get", clock.after(0.25, frozen.cache.get))
    monkeypatch.setattr(frozen.cache, "put", clock.after(0.5, frozen.cache.put))
    monkeypatch.setattr(training.ledger, "cache_holds", lambda _, seconds: told.append(seconds))
    training.scheduler.before_step(0)
    batches = [training.detector.prepare(*micro_batch) for micro_batch in training.train_loader.epoch(0)][:2]
    each = len(batches[0].images)
    for known in (0, 1, 2):  # of the batches; the first one ever warms up and is not timed
        for batch in batches:
            frozen(batch)
        frozen.end_epoch()
        if known == 0:
            frozen.cache.drop()
            frozen.cache.begin(frozen._fingerprint)
            frozen(batches[0])
            frozen.end_epoch()
    none, half_filled, half_known, all_known = told
    assert none == pytest.approx(-2 * each * (0.25 + 0.5))
    assert half_filled == pytest.approx(-each * (0.25 + 0.5))
    assert half_known == pytest.approx(each * 3.0 - 2 * each * 0.25 - each * 0.5)
    assert all_known == pytest.approx(2 * each * (3.0 - 0.25))


def test_waiting_for_data_is_told_to_the_ledger(
    narrow_run: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = build_training(prepare(narrow_run("run", **{"training.accumulation": 2})), quiet=True)
    clock, epoch = Clock(), training.train_loader.epoch

    def slow(*arguments: Any) -> Iterator[Any]:
        for micro_batch in epoch(*arguments):
            clock.now += 2.0
            yield micro_batch

    monkeypatch.setattr("dbf_ray.training.loop.time", clock)
    monkeypatch.setattr(training.train_loader, "epoch", slow)
    monkeypatch.setattr("dbf_ray.training.loop.train_step", clock.after(100.0, train_step))
    record = run_epoch(training, LoopState())
    assert record["steps"] > 1
    assert record["data_wait_seconds"] == pytest.approx(2 * 2.0 * record["steps"])
