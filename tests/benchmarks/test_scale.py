"""Many stub trials: each is begun and ended once, and rows say what that took."""

from __future__ import annotations

import pytest

from benchmarks import scale


def test_a_quick_run_ends_all_trials(capsys: pytest.CaptureFixture[str]) -> None:
    result = scale.command(["--quick", "--sampler", "random"])
    assert [row["trials"] for row in result["rows"]] == [24]
    assert result["rows"][0]["study_db_mb"] > 0
    assert "ask" in capsys.readouterr().out
