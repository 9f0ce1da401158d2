"""The benchmark of oriented boxes runs, and its variants agree."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import rotated_ops
from benchmarks.rotated_ops import (
    Settings,
    clustered,
    command,
    greedy_over_matrix,
    retinanet_anchors,
    scattered,
    take_turns,
)
from dbf_ray.geometry import batched_nms_rotated


def test_the_quick_run_prints_rows_whose_variants_agree(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap = [
        case
        for case in rotated_ops.CASES
        if case not in (rotated_ops.iou_of_anchors, rotated_ops.nms_15_classes)
    ]
    monkeypatch.setattr(rotated_ops, "CASES", cheap)
    result = command(["--quick", "--rounds", "1", "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == result["rows"]
    assert len(result["rows"]) == len(cheap)
    assert len({row["case"] for row in result["rows"]}) == len(cheap)
    for row in result["rows"]:
        assert min(row["ms"].values()) > 0
        assert set(row["times_faster"]) == set(row["ms"]) - {row["reference"]}
        assert row.get("kept_by_one_only", 0) == 0
        assert row.get("largest_difference", 0) < 1e-3


def test_the_number_of_anchors_is_that_of_the_image() -> None:
    assert len(retinanet_anchors(1024, 768)) == 147312


def test_the_least_time_of_each_variant_counts() -> None:
    calls: list[str] = []
    times, results = take_turns({"a": lambda: calls.append("a") or 1, "b": lambda: calls.append("b") or 2}, 2)
    assert calls == ["a", "b", "a", "b"]
    assert results == {"a": 1, "b": 2}
    assert min(times.values()) >= 0


def test_the_reference_loop_keeps_the_same_with_classes() -> None:
    boxes = torch.cat([scattered(150, 200, 200, 1), clustered(150, 10, 200, 2)])
    scores, labels = torch.rand(300), torch.randint(4, (300,))
    assert torch.equal(
        greedy_over_matrix(boxes, scores, labels, 0.3), batched_nms_rotated(boxes, scores, labels, 0.3)
    )
    assert Settings(1, quick=True).count(2000) == 200
