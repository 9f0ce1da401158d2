"""The benchmark of frozen epochs runs, its cache hits, and its profile says where the time goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.frozen_epochs import PARTS, command
from tests.tiny import TINY, as_options

SMALL = {**TINY, "data.train_images": 9, "data.orientation_per": "span", "training.batch_size": 3}


@pytest.mark.usefixtures("narrow")
def test_every_way_is_trained_and_profiled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # the benchmark's own, and what it has no options for
    left_out = ("training.epochs", "tracking.mlflow", "search.controls", "evaluation.pictures_every")
    options = {key: value for key, value in SMALL.items() if key not in left_out} | {"runs_dir": tmp_path}
    result = command([*as_options(options), "--rounds", "1", "--full", "1", "--profile", "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result
    rows = {(row["engine"], row["cache"]): row for row in result["rows"]}
    assert {key: (row["cache_hits"], row["cache_misses"]) for key, row in rows.items()} == {
        **{(engine, "off"): (0, 0) for engine in (False, True)},
        **{(engine, "ram"): (9, 0) for engine in (False, True)},
    }
    assert (
        rows[True, "ram"]["executed_flops"]
        < rows[True, "off"]["executed_flops"]
        < result["full"]["executed_flops"]
    )
    assert set(result["profile"]) == set(PARTS)
    assert all(0 < share < 1 for share in result["profile"].values())
    assert 0.2 < sum(result["profile"].values()) < 1
