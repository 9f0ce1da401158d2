"""``dbf export``: a file that is said to fit, and refusals of one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.cli.export import command, main
from dbf_ray.run import run
from tests.tiny import tiny_config

Refused = Callable[[Callable[..., Any], Sequence[str]], str]


def test_a_checkpoint_becomes_a_file(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "made" / "model.onnx"
    assert main(["--checkpoint", str(checkpoint), "--out", str(out), "--image-size", "96", "--json"]) == 0
    said, printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed)
    assert result["bytes"] == out.stat().st_size
    assert result["inputs"] == {"images": ["batch", 3, 96, 96]}
    assert 0 < result["difference_of_boxes"] < 1e-3
    assert said.startswith(f"{out}: ")
    assert "largest difference from the detector on ten images: " in said


def test_two_stages_are_refused_by_name(tmp_path: Path, refused: Refused, narrow: None) -> None:
    config = tiny_config(detector__name="oriented_rcnn", training__epochs=1, runs_dir=str(tmp_path / "runs"))
    checkpoint = run(config, quiet=True, coverage=False)["checkpoint"]
    line = refused(command, ["--checkpoint", checkpoint, "--out", str(tmp_path / "model.onnx")])
    assert "oriented_rcnn has two stages" in line
    assert "--register NAME" in line
    assert "dbf predict" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "x.onnx", "--batch", "some"], "--batch must be a number >= 1 or dynamic, got 'some'"),
        (["--out", "x.onnx", "--image-size", "9"], "--image-size must be in 32..8192 pixels, got 9"),
        (["--out", "x.onnx", "--config", "demo"], "--config cannot change it; leave it out"),
        (["--out", "x.onnx", "--training.lr", "1"], "unknown option --training.lr"),
        ([], "--out"),
    ],
)
def test_what_cannot_be_is_one_line(
    options: list[str], words: str, checkpoint: Path, refused: Refused
) -> None:
    assert words in refused(command, ["--checkpoint", str(checkpoint), *options])


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, refused: Refused) -> None:
    assert "is not a checkpoint" in refused(
        command, ["--checkpoint", str(tmp_path / "no"), "--out", "x.onnx"]
    )
