"""The lines that a person sees while a search runs."""

from __future__ import annotations

from dbf_ray.search.progress import SearchProgress


def test_failed_trials_do_not_count_as_done():
    said: list[str] = []
    progress = SearchProgress(said.append, done=1, total=3, concurrent=1)
    nothing = {"trials": [], "front": []}
    progress.end(1, {"summary": {"map50": 0.5, "compute_ratio": 0.7}}, None, nothing)
    progress.end(2, {}, "out of memory", nothing)
    progress.end(3, {"summary": {"map50": 0.5, "compute_ratio": 0.7}}, None, nothing)
    assert [line.split()[0] for line in said] == ["[2/3]", "[2/3]", "[3/3]"]
    assert "FAILED: out of memory" in said[1]
