"""The ledger's arithmetic against sums done by hand, with a clock and a memory that the test drives."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dbf_ray.cost import ledger as ledger_module
from dbf_ray.cost.flops import FlopTable
from dbf_ray.cost.ledger import Ledger
from dbf_ray.detectors import make_detector


def flops(height: int, width: int, frozen: int) -> int:
    return height * width * (10 - frozen)


class World:
    """A clock, a memory and an energy counter that only move when told."""

    def __init__(self) -> None:
        self.now, self.peak, self.energy = 100.0, 0, None

    def run(self, seconds: float, peak: int = 0) -> None:
        self.now += seconds
        self.peak = peak

    def take(self) -> int:
        return self.peak

    def joules(self) -> float | None:
        return self.energy


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(ledger_module, "time", SimpleNamespace(perf_counter=lambda: world.now))
    monkeypatch.setattr(ledger_module, "PeakMemory", lambda device: world)
    monkeypatch.setattr(ledger_module, "EnergyMeter", lambda device: world)
    return world


def one_epoch(ledger: Ledger, world: World, epoch: int, prefix: int, reduced: int = 0) -> dict[str, Any]:
    """Two steps of 2 and 3 seconds (1 of them waiting), then 5 seconds of evaluation."""
    ledger.begin_epoch(epoch)
    world.run(0.5)
    ledger.add_wait(0.5)
    world.run(1.5, peak=100)
    ledger.step(4, (10, 20), prefix)
    world.run(2.5, peak=200)
    ledger.add_wait(0.5)
    ledger.step(2, (10, 10), prefix)
    ledger.step(2, (10, 20), prefix)
    world.run(0.5, peak=150)
    ledger.end_steps()
    world.run(5.0, peak=900)
    return ledger.end_epoch(allreduce_bytes=reduced)


def test_an_epochs_costs_add_up(world: World) -> None:
    cost = one_epoch(Ledger(flops), world, 0, 3, reduced=70)
    assert cost == {
        "executed_flops": (4 + 2) * 1400 + 2 * 700,
        "device_seconds": 5.0,
        "data_wait_seconds": 1.0,
        "data_wait_share": 0.2,
        "wall_seconds": 10.0,
        "allreduce_bytes": 70,
        "images_per_second": 8 / 5,
        "peak_memory_bytes": 200,  # evaluation's 900 is not training's
        "mean_memory_bytes": round((2.0 * 100 + 2.5 * 200 + 0.5 * 150) / 5),
        "energy_joules": None,
        "cache_hits": 0,
        "cache_misses": 0,
        "cache_bytes": 0,
        "cache_seconds_saved": 0.0,
        "attempt": 1,
    }


def test_totals_are_the_sums_of_epochs(world: World) -> None:
    ledger = Ledger(flops)
    first, second = one_epoch(ledger, world, 0, 0, reduced=70), one_epoch(ledger, world, 1, 4, reduced=90)
    totals = ledger.totals()
    for key in ("executed_flops", "device_seconds", "data_wait_seconds", "wall_seconds", "allreduce_bytes"):
        assert totals[key] == first[key] + second[key]
    # the wrappers' counter only rises
    assert (first["allreduce_bytes"], second["allreduce_bytes"]) == (
        70,
        20,
    )
    assert totals["peak_memory_bytes"] == 200
    assert totals["mean_memory_bytes"] == 155
    assert totals["images_per_second"] == 1.6
    assert totals["attempts"] == 1
    assert "attempt" not in totals


def test_mean_memory_weighs_by_time(world: World) -> None:
    ledger = Ledger(flops)
    for seconds, peak in ((9.0, 100), (1.0, 1100)):
        ledger.begin_epoch(0)
        world.run(seconds, peak)
        ledger.step(1, (1, 1), 0)
        ledger.end_epoch()
    assert ledger.totals()["mean_memory_bytes"] == 200
    assert ledger.totals()["peak_memory_bytes"] == 1100


@pytest.mark.parametrize("gathered", [True, False])
def test_ranks_are_combined(world: World, gathered: bool) -> None:
    def gather(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            row,
            {
                **row,
                "device_seconds": 7.0,
                "wall_seconds": 12.0,
                "peak_memory_bytes": 500,
                "memory_seconds": 3500.0,
                "energy_joules": 4.0,
            },
        ]

    world.energy = 0.0
    cost = one_epoch(
        Ledger(flops, world_size=2, gather=gather if gathered else None), world, 0, 3, reduced=70
    )
    assert cost["executed_flops"] == 2 * 9800
    assert cost["allreduce_bytes"] == 70
    assert cost["data_wait_seconds"] == 2.0
    assert cost["device_seconds"] == (12.0 if gathered else 10.0)
    assert cost["wall_seconds"] == (12.0 if gathered else 10.0)
    assert cost["images_per_second"] == (16 / 7 if gathered else 16 / 5)
    assert cost["peak_memory_bytes"] == (500 if gathered else 200)
    assert cost["mean_memory_bytes"] == round((775 + 3500) / 12 if gathered else 155)
    assert cost["energy_joules"] == (4.0 if gathered else 0.0)


def test_progress_is_measured_over_all_ranks(world: World) -> None:
    ledger = Ledger(flops, world_size=2)
    ledger.begin_epoch(0)
    assert ledger.images_per_second() == 0.0
    world.run(4.0)
    ledger.step(2, (8, 8), 0)
    assert ledger.images_per_second() == 1.0


def test_energy_is_that_of_the_training_steps(world: World) -> None:
    world.energy = 1000.0
    ledger = Ledger(flops)
    for epoch in range(2):
        ledger.begin_epoch(epoch)
        world.energy += 30.0
        ledger.step(1, (1, 1), 0)
        ledger.end_steps()
        world.energy += 500.0
        assert ledger.end_epoch()["energy_joules"] == 30.0
    assert ledger.totals()["energy_joules"] == 60.0


def test_resume_is_exact_and_counts_the_attempt(world: World) -> None:
    straight, first = Ledger(flops), Ledger(flops)
    for epoch in range(2):
        one_epoch(straight, world, epoch, epoch, reduced=10 * (epoch + 1))
        one_epoch(first, world, epoch, epoch, reduced=10 * (epoch + 1))
    resumed = Ledger(flops)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert one_epoch(straight, world, 2, 4, reduced=50)["attempt"] == 1
    assert one_epoch(resumed, world, 2, 4, reduced=30)["attempt"] == 2  # new wrappers count from 0
    assert resumed.totals() == {**straight.totals(), "attempts": 2}


def test_repeated_epochs_cost_again_without_a_journal_from_the_checkpoint_on(world: World) -> None:
    ledger = Ledger(flops)
    cost = one_epoch(ledger, world, 0, 0)
    state = ledger.state_dict()
    one_epoch(ledger, world, 1, 0)  # lost with the process
    resumed = Ledger(flops)
    resumed.load_state_dict(state)
    one_epoch(resumed, world, 1, 0)
    assert resumed.totals()["executed_flops"] == 2 * cost["executed_flops"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_work_that_a_killed_attempt_had_done_is_counted_from_the_journal(
    world: World, tmp_path: Path, ranks: int
) -> None:
    journal = tmp_path / "run" / "cost.jsonl"

    def make() -> Ledger:
        ledger = Ledger(flops, world_size=ranks, journal=journal)
        assert ledger._journal is not None
        ledger._journal.every = 0.0
        return ledger

    ledger = make()
    whole = one_epoch(ledger, world, 0, 0)
    checkpoint = json.loads(json.dumps(ledger.state_dict()))
    one_epoch(ledger, world, 1, 0)  # finished, but its checkpoint was never written
    ledger.begin_epoch(2)
    world.run(3.0, peak=10)
    ledger.step(5, (10, 10), 2)  # killed here
    journal.write_text(journal.read_text() + '{"attempt": 1, "epo')  # a torn line

    second = make()
    second.load_state_dict(checkpoint)
    lost = ranks * 5 * flops(10, 10, 2)
    assert second.totals()["executed_flops"] == 2 * whole["executed_flops"] + lost
    assert second.totals()["device_seconds"] == 2 * whole["device_seconds"] + 3.0 * ranks
    assert one_epoch(second, world, 1, 0)["attempt"] == 2
    later = json.loads(json.dumps(second.state_dict()))

    third = make()
    third.load_state_dict(later)  # nothing new was lost: nothing is counted twice
    assert third.totals() == {**second.totals(), "attempts": 3}
    fourth = make()
    # from the first checkpoint again: attempt 2's epoch 1 is now lost work as well
    fourth.load_state_dict(checkpoint)
    assert fourth.totals()["executed_flops"] == 3 * whole["executed_flops"] + lost
    assert fourth.totals()["attempts"] == 3


def test_a_fresh_run_forgets_the_journal_of_an_earlier_one(world: World, tmp_path: Path) -> None:
    journal = tmp_path / "cost.jsonl"
    one_epoch(Ledger(flops, journal=journal), world, 7, 0)
    fresh = Ledger(flops, journal=journal)
    one_epoch(fresh, world, 0, 0)
    again = Ledger(flops, journal=journal)
    again.load_state_dict(fresh.state_dict())
    assert again.totals()["executed_flops"] == fresh.totals()["executed_flops"]


def test_a_journal_that_cannot_be_written_is_given_up_with_a_warning(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ledger = Ledger(flops, journal=tmp_path / "file" / "cost.jsonl")
    with pytest.warns(UserWarning, match="cost journal .* cannot be written"):
        cost = one_epoch(ledger, world, 0, 0)
    assert cost["executed_flops"] > 0
    one_epoch(ledger, world, 1, 0)


def test_flops_of_huge_runs_stay_exact_through_json() -> None:
    ledger = Ledger(lambda h, w, n: 10**15 + 1)
    for epoch in range(3):
        ledger.begin_epoch(epoch)
        ledger.step(10**6 + 1, (1, 1), 0)
        ledger.end_epoch()
    again = Ledger(flops)
    again.load_state_dict(json.loads(json.dumps(ledger.state_dict())))
    assert again.totals()["executed_flops"] == 3 * (10**15 + 1) * (10**6 + 1)


def test_a_detector_in_use_is_measured_with_real_clocks_and_memory() -> None:
    detector = make_detector(
        "rotated_retinanet", backbone="mobilenet_v2", num_classes=2, fpn_channels=16, head_convs=1
    )
    ledger = Ledger(detector)
    ledger.begin_epoch(0)
    ledger.step(2, (64, 96), 4)
    held = torch.ones(30_000_000)
    ledger.step(2, (64, 64), 0)
    del held
    ledger.end_steps()
    cost = ledger.end_epoch()
    table = FlopTable(detector)
    assert cost["executed_flops"] == 2 * table(64, 96, 4) + 2 * table(64, 64, 0)
    assert cost["wall_seconds"] >= cost["device_seconds"] > 0
    assert cost["peak_memory_bytes"] > 120_000_000
    assert 0 < cost["mean_memory_bytes"] <= cost["peak_memory_bytes"]


def test_an_epoch_without_steps_costs_nothing(world: World) -> None:
    ledger = Ledger(flops)
    ledger.begin_epoch(0)
    cost = ledger.end_epoch()
    assert [
        cost[key] for key in ("executed_flops", "device_seconds", "images_per_second", "mean_memory_bytes")
    ] == [0, 0.0, 0.0, 0]
    assert Ledger(flops).totals()["executed_flops"] == 0


def test_cached_images_cost_no_forward_pass_of_what_is_frozen(world: World) -> None:
    detector = make_detector(
        "rotated_retinanet", backbone="resnet18", num_classes=1, fpn_channels=8, head_convs=0
    )
    table = FlopTable(detector)
    ledger = Ledger(table, world_size=2)
    for epoch, (hits, misses, held) in enumerate([(0, 4, 700), (3, 1, 500)]):
        ledger.begin_epoch(epoch)
        ledger.add_cache_use(hits, misses, (64, 96), 2)
        world.run(2.0)
        ledger.step(4, (64, 96), 2)
        ledger.end_steps()
        ledger.cache_holds(held, 0.25 * hits)
        row = ledger.end_epoch()
        assert row["executed_flops"] == 2 * (4 * table(64, 96, 2) - hits * table.prefix_forward(64, 96, 2))
        assert (row["cache_hits"], row["cache_misses"], row["cache_bytes"]) == (
            2 * hits,
            2 * misses,
            2 * held,
        )
        assert row["cache_seconds_saved"] == 2 * 0.25 * hits
    totals = ledger.totals()
    assert (
        totals["cache_hits"],
        totals["cache_misses"],
        totals["cache_bytes"],
        totals["cache_seconds_saved"],
    ) == (6, 10, 1400, 1.5)
    assert (
        table.prefix_forward(64, 96, 4)
        == table.backbone_forward(64, 96)
        > table.prefix_forward(64, 96, 2)
        > 0
        == table.prefix_forward(64, 96, 0)
    )
