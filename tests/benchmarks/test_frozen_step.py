"""The benchmark of frozen steps runs, its ways train what they say, and its counts are right."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from benchmarks import frozen_step
from benchmarks.frozen_step import WAYS, command, flops_of, make_stepper, parse_backbone
from dbf_ray.cost import FlopTable
from dbf_ray.cost.memory import PeakMemory
from dbf_ray.errors import ConfigError

KEYS = {"detector", "backbone", "way", "step_ms", "step_ms_min", "flops", "peak_bytes", "held_bytes"}


def test_the_quick_run_prints_a_row_for_each_way(capsys: pytest.CaptureFixture[str]) -> None:
    result = command(["--quick", "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result
    assert [row["way"] for row in result["rows"]] == list(WAYS)
    assert all(row.keys() >= KEYS for row in result["rows"])
    assert result.keys() >= {"rows", "b", "ceiling", "machine", "versions"}
    rows = {row["way"]: row for row in result["rows"]}
    assert all(0 < row["step_ms_min"] <= row["step_ms"] for row in rows.values())
    flops = [rows[way]["flops"] for way in WAYS]
    assert flops == sorted(flops, reverse=True)
    held = {way: row["held_bytes"] for way, row in rows.items()}
    # DBF's own code keeps the backbone's activations until the neck is done
    assert 0.8 * held["full"] < held["official"] <= held["full"]
    assert all(held[way] < held["official"] / 2 for way in ("frozen", "engine", "cached"))
    peak = {way: row["peak_bytes"] for way, row in rows.items()}
    if PeakMemory().exact:  # else what is gone before the look is not seen
        assert all(0 < peak[way] < peak["full"] / 2 for way in ("frozen", "engine", "cached"))
    assert list(result["b"]) == list(result["ceiling"]) == ["rotated_retinanet/mobilenet_v2:64x2"]
    (b,), (ceiling,) = result["b"].values(), result["ceiling"].values()
    assert ceiling["no_grad"] == pytest.approx(3 / (3 - 2 * b))
    assert ceiling["cached"] == pytest.approx(1 / (1 - b))
    assert rows["full"]["flops"] / rows["frozen"]["flops"] == pytest.approx(ceiling["no_grad"], rel=0.01)
    assert rows["full"]["flops"] / rows["cached"]["flops"] == pytest.approx(ceiling["cached"], rel=0.01)


def test_two_widths_of_a_backbone_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {
        way: dict.fromkeys(("step_ms", "step_ms_min", "peak_bytes", "held_bytes"), 1.0) for way in WAYS
    }
    monkeypatch.setattr(frozen_step, "measure", lambda *_: measured)
    widths = ["mobilenet_v2:64x2", "mobilenet_v2:16x1"]
    result = command(["--detectors", "rotated_retinanet", "--backbones", *widths, "--size", "64"])
    assert list(dict.fromkeys(row["backbone"] for row in result["rows"])) == widths
    assert list(result["b"]) == [f"rotated_retinanet/{width}" for width in widths]
    assert (
        len(set(result["b"].values()))
        == len({ceiling["cached"] for ceiling in result["ceiling"].values()})
        == 2
    )


def test_some_of_the_ways(capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "--detectors",
        "rotated_retinanet",
        "--backbones",
        "mobilenet_v2:16x1",
        "--size",
        "64",
        "--rounds",
        "1",
    ]
    result = command([*small, "--ways", "engine", "frozen"])
    assert [row["way"] for row in result["rows"]] == ["frozen", "engine"]
    assert "nan" in capsys.readouterr().out  # no ratio without full


def test_all_frozen_ways_give_the_head_the_same_gradients() -> None:
    options = argparse.Namespace(device="cpu", size=64, batch=2, precision="float32", compile_engine=False)
    stepper = make_stepper(options, "rotated_retinanet", "resnet18", {"fpn_channels": 16, "head_convs": 1})
    found = {}
    for way in WAYS:
        stepper.begin(way)
        stepper.detector.zero_grad()
        stepper.forward(way).backward()
        found[way] = {name: p.grad for name, p in stepper.detector.named_parameters() if p.grad is not None}
    heads = set(found["full"]) - {name for name in found["full"] if name.startswith("backbone.")}
    assert len(heads) < len(found["full"])
    for way in WAYS[1:]:
        assert set(found[way]) == heads
        off = (
            torch.stack([(found[way][name] - found["full"][name]).square().sum() for name in heads])
            .sum()
            .sqrt()
        )
        whole = torch.stack([found["full"][name].square().sum() for name in heads]).sum().sqrt()
        assert off < (5e-2 if way == "cached" else 1e-3) * whole, way


def test_flops_of_the_official_way_keep_the_whole_forward_pass() -> None:
    options = argparse.Namespace(device="cpu", size=64, batch=2, precision="float32", compile_engine=False)
    stepper = make_stepper(options, "rotated_retinanet", "resnet18", {"fpn_channels": 16, "head_convs": 1})
    table = FlopTable(stepper.detector)
    flops = flops_of(table, 64, 2)
    assert flops["official"] == 2 * (table.step(64, 64, 0).forward + table.step(64, 64, 4).backward)
    assert flops["frozen"] - flops["cached"] == 2 * table.backbone_forward(64, 64)


def test_widths_of_backbones() -> None:
    assert parse_backbone("resnet50") == ("resnet50", {})
    assert parse_backbone("mobilenet_v2:64x2") == ("mobilenet_v2", {"fpn_channels": 64, "head_convs": 2})
    with pytest.raises(ConfigError, match="NAME:CHANNELSxCONVS, got 'resnet50:64'"):
        parse_backbone("resnet50:64")


def test_growth_sees_what_is_allocated() -> None:
    def run() -> None:
        torch.ones(30_000_000)

    assert frozen_step.growth(run, torch.device("cpu")) == pytest.approx(120e6, rel=0.2)
