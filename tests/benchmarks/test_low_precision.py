"""The benchmark of low precision trains every way, compares pairs of one seed, and goes on where it stopped."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import low_precision
from benchmarks.low_precision import WAYS, command, spread, summary

TINY = {
    **{"data.train_images": "4", "data.val_images": "2", "data.image_size": "64", "detector.backbone": "mobilenet_v2"},
    **{"detector.fpn_channels": "8", "detector.head_convs": "0", "training.epochs": "1", "training.batch_size": "2"},
}


def arguments(folder: Path, **changes: str) -> list[str]:
    """A command line for two trainings of a few seconds."""
    options = {**TINY, "runs_dir": str(folder), **changes}
    return ["--seeds", "1", "--only", "kept in bf16", *(part for key, value in options.items() for part in (f"--{key}", value)), "--json"]


def test_a_row_for_each_way_and_seed_and_a_second_call_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = command(arguments(tmp_path))
    assert {(row["way"], row["seed"]) for row in result["rows"]} == {("float32", 0), ("kept in bf16", 0)}
    assert all(0 <= row["wide"] <= 1 and 0 <= row["map50"] <= 1 for row in result["rows"])
    assert set(result["ways"]) == {"float32", "kept in bf16"}
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == result["rows"]

    trained: list[str] = []
    monkeypatch.setattr(low_precision, "run", lambda config, quiet: trained.append(config.name))
    monkeypatch.setattr(low_precision, "measured", lambda trainings, _: [low_precision.score(low_precision.to_dict(c)) for c in trainings])
    assert sorted(command(arguments(tmp_path))["rows"], key=str) == sorted(result["rows"], key=str)
    assert trained == []
    with pytest.raises(IndexError):  # another recipe is another measurement: it is trained, here without leaving a checkpoint
        command(arguments(tmp_path / "other", **{"training.lr": "1e-3"}))
    assert trained == ["float32-0"]


def test_pairs_of_one_seed_are_compared() -> None:
    scores = {("float32", 0): 0.30, ("float32", 1): 0.20, ("kept in bf16", 1): 0.21, ("kept in bf16", 0): 0.27}
    rows = [{"way": way, "seed": seed, "map50": map50, "wide": 2 * map50} for (way, seed), map50 in scores.items()]
    found = summary(rows)["kept in bf16"]
    assert found["seeds"] == 2
    assert found["map50_mean"] == pytest.approx(0.24)
    assert found["map50_spread"] == pytest.approx(0.06 / math.sqrt(2))
    assert found["map50_off"] == pytest.approx(-0.01)  # -.03 and +.01
    assert found["map50_off_error"] == pytest.approx(0.04 / math.sqrt(2) / math.sqrt(2))
    assert found["wide_off"] == pytest.approx(-0.02)
    assert summary(rows)["float32"]["map50_off"] == 0
    assert math.isnan(spread([0.3]))


def test_ways_differ_in_nothing_but_how_frozen_stages_are_run() -> None:
    config = low_precision.load_config(None, {})
    trees = {way: low_precision.to_dict(low_precision.of_way(config, way, 3)) for way in WAYS}
    for tree in trees.values():
        tree["freezing"] = {
            key: value for key, value in tree["freezing"].items() if key not in ("engine", "engine_precision", "cache_dtype")
        }
        assert tree.pop("name").endswith("-3")
    assert all(tree == trees["float32"] for tree in trees.values())
