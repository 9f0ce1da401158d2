"""The lines that a person sees while a search runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from dbf_ray.search.progress import SearchProgress


def test_failed_trials_do_not_count_as_done():
    said: list[str] = []
    progress = SearchProgress(said.append, done=1, total=3, concurrent=1, clock=lambda: 0.0)
    rows = [{"number": number, "map75": 0.5, "device_seconds": 7.0} for number in (1, 3)]
    result = {"trials": rows, "front": [1, 3], "objectives": {"map75": "", "device_seconds": ""}}
    progress.end(1, None, result)
    progress.end(2, "out of memory", result)
    progress.end(3, None, result)
    assert [line.split()[0] for line in said] == ["[2/3]", "[2/3]", "[3/3]"]
    assert "map75 0.500, device_seconds 7.0 s, 0 s | best map75 0.500, front 2" in said[0]
    assert "FAILED: out of memory" in said[1]


def test_the_time_left_goes_by_epochs_also_of_a_study_that_goes_on():
    said: list[str] = []
    times = iter([0.0, 0.0, 10.0, 10.0, 10.0])
    progress = SearchProgress(said.append, done=1, total=4, concurrent=2, clock=lambda: next(times))
    rows = [{"number": number, "map50": 0.5, "compute_ratio": 0.7} for number in (0, 1)]
    result = {"trials": rows, "front": [0], "objectives": {"map50": "", "compute_ratio": ""}}
    interrupted = SimpleNamespace(policy="full", parameters={}, overrides={})
    progress.begin(cast(Any, SimpleNamespace(number=1, setting=interrupted, again=True)))
    progress.epoch(1, {"epoch": 11}, 12)  # its last
    progress.end(1, None, result | {"epochs_trained": 24})
    assert said[-1].endswith(" | about 2:00 left")  # 2 trials of 12 epochs of 10 s, two at once
