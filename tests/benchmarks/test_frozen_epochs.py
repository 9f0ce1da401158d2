"""The benchmark of frozen epochs runs, its cache hits, and its profile says where the time goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.frozen_epochs import PARTS, command

SMALL = {
    **{
        "data.name": "synthetic",
        "data.train_images": 9,
        "data.val_images": 2,
        "data.image_size": 64,
        "data.orientation_per": "span",
    },
    **{"detector.backbone": "mobilenet_v3_small", "detector.fpn_channels": 16, "detector.head_convs": 1},
    **{"training.batch_size": 3, "training.threads": 1, "training.warmup_steps": 1},
}


def test_every_way_is_trained_and_profiled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [
        part for key, value in {**SMALL, "runs_dir": tmp_path}.items() for part in (f"--{key}", str(value))
    ]
    result = command([*settings, "--rounds", "1", "--full", "1", "--profile", "--json"])
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
