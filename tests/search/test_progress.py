"""The lines that a person sees while a search runs."""

from __future__ import annotations

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
