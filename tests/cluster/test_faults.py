"""Faults, done to real processes, cost nothing: the rows of ``python -m benchmarks.faults`` as tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import faults as table
from tests.faults.place import Place
from tests.faults.rows import Cost, Fault, NotHereError, all_faults

FAULTS = all_faults()
QUICK = ("rank", "sigterm", "torn")


@pytest.mark.ray
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAULTS]
)
def test_a_fault_costs_nothing(name: str, tmp_path: Path, uri: str) -> None:
    with Place(tmp_path, uri).cleared() as place:
        try:
            row = FAULTS[name].row(place)
        except NotHereError as why:
            pytest.skip(str(why))
    assert row["lost"].startswith("nothing")


def test_the_table_keeps_what_is_measured_and_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def prove(name: str) -> Cost:
        seen.append(name)
        if seen == ["a", "b"]:
            raise AssertionError("an epoch\ntwice")
        return Cost(1.25, "nothing")

    made = {n: Fault(n, f"harm {n}", "now", "nobody", lambda _, n=n: prove(n)) for n in ("a", "b")}  # type: ignore[misc]
    monkeypatch.setattr(table, "all_faults", lambda: made)
    (tmp_path / "empty.db").touch()
    monkeypatch.setattr(table, "empty_store", lambda _: tmp_path / "empty.db")
    arguments = ["--out", str(tmp_path / "rows.jsonl"), "--json"]
    assert table.run_command(table.command, arguments) == 2
    printed = capsys.readouterr()
    assert "| harm a | now | nobody | 1.2 | nothing |" in printed.out
    assert "| harm b | now | nobody |  | FAILED: an epoch twice |" in printed.out
    assert "error: every fault must cost nothing, b did not" in printed.err
    assert table.run_command(table.command, arguments) == 0
    assert seen == ["a", "b", "b"]
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["lost"] for row in rows] == ["nothing", "nothing"]
    assert table.run_command(table.command, ["c"]) == 2
    assert "a fault must be one of a, b, got c" in capsys.readouterr().err
