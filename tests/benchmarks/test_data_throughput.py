"""The benchmark of the data's path runs and reports every way."""

from __future__ import annotations

import json

import pytest

from benchmarks import data_throughput
from benchmarks.data_throughput import command


def test_rows_of_every_way(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_throughput, "usable_cpus", lambda: 1)
    result = command(["--images", "4", "--side", "96", "--size", "64", "--rounds", "1", "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == result["rows"]
    by_way = {(row["what"], row["way"]): row for row in result["rows"]}
    assert {way for what, way in by_way if what == "split"} == {"one process", "all cores", "all done before"}
    assert {row["count"] for row in result["rows"] if row["what"] == "split"} == {4 * 4}
    assert {row["count"] for row in result["rows"] if row["what"] == "load"} == {4}
    assert all(row["per_second"] == row["count"] / row["seconds"] > 0 for row in result["rows"])
