"""Folders whose names hold signs that mean something in URLs, in shells or to formatting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dbf_ray.cli import predict, prepare_data, search, train
from dbf_ray.cli.options import run_command
from dbf_ray.tracking.urls import sqlite_file
from tests.cli.conftest import make_root, tiny_options
from tests.tiny import as_options

ODD = "a?b %23#c {x} é&d"


@pytest.mark.usefixtures("narrow")
def test_training_prediction_and_splitting_read_and_write_there(tmp_path: Path) -> None:
    place = tmp_path / ODD
    root = make_root(place / "data")
    options = [*tiny_options(root, place / "runs"), "--name", "n"]
    assert run_command(train.command, options) == 0
    checkpoint = place / "runs" / "n" / "checkpoints" / "epoch-00001"
    assert checkpoint.is_dir()
    where = {"checkpoint": checkpoint, "images": root / "val" / "images", "out": place / "found"}
    assert run_command(predict.command, as_options(where)) == 0
    assert list((place / "found").iterdir())
    cut = [str(root), str(place / "cut"), "--size", "64", "--overlap", "8", "--workers", "0"]
    assert run_command(prepare_data.command, ["split", *cut]) == 0
    assert len(list((place / "cut" / "train" / "images").iterdir())) == 8
    assert [path.name for path in tmp_path.iterdir()] == [ODD]


@pytest.mark.parametrize("name", ["train", "search"])
def test_a_question_mark_pasted_into_a_uri(name: str, tiny: list[str], refused: Callable[..., str]) -> None:
    """Else the database would be another file, beside the folder that was meant."""
    command, more = (train.command, []) if name == "train" else (search.command, ["--space", "rho"])
    uri = ["--tracking.mlflow", "true", "--tracking.uri", "sqlite:////tmp/a?b/m.db"]
    line = refused(command, [*tiny, *more, *uri])
    assert "tracking.uri must be a URL, in which '?' begins options, got sqlite:////tmp/a?b/m.db" in line
    assert line.endswith("write %3F for a '?' of the path")
    assert str(sqlite_file("sqlite:////tmp/a%3Fb/m.db")) == "/tmp/a?b/m.db"
