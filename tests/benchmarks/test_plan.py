"""The benchmark of a plan runs, and its steps add up."""

from __future__ import annotations

import json

import pytest

from benchmarks.plan import DETECTORS, command


def test_every_step_of_a_plan_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    result = command(["--quick", "--detectors", *DETECTORS[1:], "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result
    assert set(result["rows"]) == set(DETECTORS[1:])
    for seconds in result["rows"].values():
        steps = {name: value for name, value in seconds.items() if name != "all"}
        assert next(iter(steps)) == "reading"
        assert {"anchors", "coverage"} <= set(steps)
        assert all(value >= 0 for value in steps.values())
        assert sum(steps.values()) == pytest.approx(seconds["all"])
    assert result["objects"] > result["images"] == 20
