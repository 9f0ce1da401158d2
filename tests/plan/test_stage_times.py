"""Steps with each number of frozen stages, timed for real on the tiny training of the tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dbf_ray.build import prepare
from dbf_ray.cost import Stretch, flop_counter
from dbf_ray.plan import stage_times
from dbf_ray.plan.costs import Costs
from dbf_ray.plan.stage_times import StageTimes, time_stages
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("narrow")
COSTS = Costs(
    "cpu", 64, (1.0, 2.0), (10, 20), (5, 10), (5, 10), 0.5, 0.125, 0.25, (3, 4), 0, True, 8, 2, (4, 4)
)
TIMES = StageTimes((4.0, 3.0, 2.0), (4.0, 2.5, 1.0), (40, 30, 20), 4, 3, True, COSTS)


def flops_of(self: Any, work: Callable[[], Any]) -> float:
    """Instead of a clock, which a busy machine disturbs."""
    with flop_counter() as counter:
        work()
    return float(counter.get_total_flops())


def test_every_number_of_frozen_stages_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage_times.Measurement, "_timed", flops_of)
    monkeypatch.setattr(stage_times.Clock, "holds", lambda self, seconds: True)  # these are no seconds
    before = torch.get_rng_state()
    config = tiny_config(freezing__cache="ram", freezing__policy="step", freezing__rho=2)
    found = time_stages(config)
    assert torch.equal(before, torch.get_rng_state())
    assert list(tmp_path.iterdir()) == [], "a measurement leaves nothing"
    assert len(found.plain) == len(found.cached) == len(found.step_bytes) == 5
    assert found.cached[0] == found.plain[0]
    spec = prepare(config)
    for n in range(1, 5):  # each runs what it should: less by what is frozen, and by what is known
        saved = spec.flops_per_prefix[0] - spec.flops_per_prefix[n]
        assert found.plain[0] - found.plain[n] == pytest.approx(found.images * saved, rel=0.05), n
        known = spec.table.prefix_forward(64, 64, n)
        assert found.plain[n] - found.cached[n] == pytest.approx(found.images * known, rel=1e-6), n
    assert found.step_bytes[4] < found.step_bytes[0]
    assert found.whole
    assert found.images == 4
    assert 2 <= found.rounds <= 5
    assert StageTimes.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_stages_that_are_always_frozen_and_several_micro_batches() -> None:
    config = tiny_config(
        detector__frozen_stages=2,
        training__accumulation=2,
        training__micro_batch_gb=1.0,
        freezing__cache="disk",
        freezing__engine=False,
        training__ema=0.9,
    )
    found = time_stages(config)
    assert found.plain[0] == found.plain[1] == found.plain[2] != found.plain[3]
    assert found.cached[0] == found.cached[2] != found.plain[2], "always frozen ones come from the cache, too"
    assert found.step_bytes[1] == found.step_bytes[2]


def test_without_time_small_images_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_times, "ROUNDS", (1, 1))
    found = time_stages(tiny_config(data__image_size=128), limit=0.0)
    assert not found.whole
    assert found.plain[0] == pytest.approx(found.images * found.costs.step_seconds[1] / 2)
    assert found.cached == ()
    assert min(found.plain) > 0
    assert found.step_bytes[4] < found.step_bytes[0]


def test_seconds_of_a_schedule() -> None:
    assert TIMES.step_seconds(0) == 4.0 + 4 * 0.125
    assert TIMES.step_seconds(2, 0.25) == 0.25 * 1.0 + 0.75 * 2.0 + 0.5
    parts = [Stretch(0, 10), Stretch(2, 20, 0.5)]
    steps = 10 * 4.5 + 20 * (1.5 + 0.5)
    assert TIMES.seconds(parts[1]) == 40.0
    first, evaluation = 0.375 * 10, (1.5 * 0.25 + 0.125) * 2  # decoding, and two images
    assert TIMES.training_seconds(parts, evaluations=3) == pytest.approx(first + steps + 3 * evaluation)
    assert TIMES.memory(parts) == 40
    assert TIMES.memory(parts[1:]) == 20
