"""A torn checkpoint at the command line: the newest whole one before it is used and named, or one line says
what to do.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import dbf_ray
from dbf_ray.cli import evaluate, predict, train
from dbf_ray.cli.options import run_command
from dbf_ray.tracking import read_epochs
from tests.training.damage import DAMAGES, cut, flipped, gone

Refused = Callable[..., str]
Trained = tuple[Path, list[str], str]
TORN = [DAMAGES[case][0] for case in ("weights cut", "record empty", "manifest gone", "half removed")]


@pytest.fixture
def pair(trained: Trained, tmp_path: Path) -> list[Path]:
    """A finished run's two last checkpoints, to be changed."""
    shutil.copytree(trained[0] / "checkpoints", tmp_path / "checkpoints")
    return sorted((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("damage", TORN)
def test_an_evaluation_uses_the_one_before_and_says_so(
    damage: Callable[[Path], object], pair: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    older, newer = pair
    assert run_command(evaluate.command, ["--checkpoint", str(older), "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert wanted["checkpoint"] == str(older)
    damage(newer)
    assert run_command(evaluate.command, ["--checkpoint", str(newer), "--json"]) == 0
    printed = capsys.readouterr()
    assert re.search(rf"warning: checkpoint {newer} is torn .*; {older} is used instead", printed.err)
    assert json.loads(printed.out.splitlines()[-1]) == wanted
    assert f"checkpoint       {older}" in printed.out


def test_a_prediction_uses_the_one_before_and_says_so(
    pair: list[Path], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    older, newer = pair
    out, images = tmp_path / "out", root / "val" / "images"
    flipped("checkpoint.pt")(newer)
    arguments = ["--images", str(images), "--out", str(out), "--json"]
    assert run_command(predict.command, ["--checkpoint", str(newer), *arguments]) == 0
    printed = capsys.readouterr()
    assert f"{older} is used instead" in printed.err
    assert json.loads(printed.out.splitlines()[-1])["checkpoint"] == str(older)
    assert json.loads((out / "predict.json").read_text())["checkpoint"] == str(older)
    assert run_command(predict.command, ["--checkpoint", str(older), *arguments]) == 0  # the same prediction
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["skipped"] == 2
    with pytest.warns(UserWarning, match="is used instead"):
        found = dbf_ray.predict_images(newer, sorted(images.iterdir()))
    assert len(found) == 2


def test_without_a_whole_one_before_it_there_is_one_line(
    pair: list[Path], tmp_path: Path, root: Path, refused: Refused
) -> None:
    older, newer = pair
    cut("record.json")(older)
    for command, more in (
        (evaluate.command, []),
        (predict.command, ["--images", str(root / "val" / "images"), "--out", str(tmp_path / "out")]),
    ):
        line = refused(command, ["--checkpoint", str(older), *more])
        (named,) = re.findall(r"give (\S+), which is whole", line)
        assert named == str(newer)
        assert run_command(command, ["--checkpoint", named, *more]) == 0
    shutil.rmtree(tmp_path / "out")
    gone("manifest.json")(newer)
    for command, more in (
        (evaluate.command, []),
        (predict.command, ["--images", str(root / "val" / "images"), "--out", str(tmp_path / "out")]),
    ):
        line = refused(command, ["--checkpoint", str(newer), *more])
        assert "manifest.json is missing, and none before it is; give one of another run" in line


def test_a_training_goes_on_from_the_one_before_or_says_what_to_do(
    tiny: list[str], tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*tiny, "--name", "torn", "--training.epochs", "3"]
    folder = tmp_path / "runs" / "torn"
    assert run_command(train.command, arguments) == 0
    (folder / "summary.json").unlink()  # as if it had been killed at the end of its last epoch
    flipped("record.json")(folder / "checkpoints" / "epoch-00003")
    capsys.readouterr()
    assert run_command(train.command, arguments) == 0
    printed = capsys.readouterr().err
    assert "warning: torn in" in printed
    assert "epoch-00003 (record.json is not what was written" in printed
    assert "resuming after 2 of 3 epochs, from" in printed
    assert [(e["epoch"], e["attempt"]) for e in read_epochs(folder)] == [(0, 1), (1, 1), (2, 2)]

    (folder / "summary.json").unlink()
    for checkpoint in (folder / "checkpoints").iterdir():
        gone("checkpoint.pt")(checkpoint)
    line = refused(train.command, arguments)
    (named,) = re.findall(r"; remove (\S+) to train it from the beginning, or give another --name", line)
    shutil.rmtree(named)
    assert run_command(train.command, arguments) == 0
    assert [(e["epoch"], e["attempt"]) for e in read_epochs(folder)] == [(0, 1), (1, 1), (2, 1)]
