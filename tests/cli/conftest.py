"""Tiny images in DOTA's format, options for a run of a second, and a way to see how a command fails."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from dbf_ray.cli import train
from dbf_ray.cli.options import run_command
from tests.tiny import write_image

Command = Callable[[Sequence[str] | None], Any]


def write_ships(folder: Path, count: int) -> None:
    """``count`` black images of 64 px, each with one bright ship."""
    for number in range(count):
        left, top = 8 + 2 * number, 16 + 3 * (number % 5)
        image = Image.new("RGB", (64, 64))
        ImageDraw.Draw(image).rectangle((left, top, left + 32, top + 16), fill=(240, 240, 240))
        write_image(folder, f"{number:03d}", image, (left, top, left + 32, top + 16))


def make_root(folder: Path) -> Path:
    """A data root of 8 training and 2 validation images."""
    write_ships(folder / "train", 8)
    write_ships(folder / "val", 2)
    return folder


def tiny_options(root: Path, runs: Path, backbone: str = "narrow") -> list[str]:
    """Options of a run of one epoch on ``root``."""
    return [
        *(
            "--data.name",
            "dota",
            "--data.root",
            str(root),
            "--data.image_size",
            "64",
            "--runs_dir",
            str(runs),
        ),
        *("--detector.backbone", backbone, "--detector.fpn_channels", "16", "--detector.head_convs", "1"),
        *(
            "--training.epochs",
            "1",
            "--training.batch_size",
            "4",
            "--training.threads",
            "1",
            "--tracking.mlflow",
            "false",
        ),
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "data")


@pytest.fixture
def tiny(root: Path, tmp_path: Path, narrow: None) -> list[str]:
    return tiny_options(root, tmp_path / "runs")


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Command, Sequence[str]], str]:
    """Calls a command that must exit with status 2, one line on stderr and nothing left behind; returns that
    line.
    """

    def call(command: Command, arguments: Sequence[str]) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert run_command(command, arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert line.startswith("error: ")
        assert sorted(tmp_path.rglob("*")) == before
        return line

    return call


@pytest.fixture
def searching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a search that would have two CPUs and goes as far as the first trial."""
    from dbf_ray.cluster.ray_runtime import Resources
    from dbf_ray.search.searching import Searching

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("dbf_ray.search.tuner.available_resources", lambda: Resources(2, 0, "this machine"))
    monkeypatch.setattr(
        Searching, "execute", lambda self: {"study": self.name, "trials": [], "front": [], "knee": None}
    )
    monkeypatch.setattr("dbf_ray.cli.search.closing", lambda *_: "searched")
    return ["--space", "rho", "--search.studies_dir", str(tmp_path / "studies")]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """A run that has learned the drawn ships: its folder, the arguments, and what it printed on stdout."""
    place = tmp_path_factory.mktemp("trained")
    arguments = [
        *(
            *tiny_options(make_root(place / "data"), place / "runs", "resnet18"),
            "--name",
            "5",
            "--evaluation.every",
            "7",
            "--json",
        ),
        *(
            "--training.epochs",
            "14",
            "--training.lr",
            "2e-3",
            "--training.schedule",
            "cosine",
            "--training.warmup_steps",
            "4",
        ),
        *(
            "--detector.anchor_ratios",
            "[2.0]",
            "--detector.anchor_scales",
            "[0.5, 1.0]",
            "--data.flips",
            "[]",
        ),
    ]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run_command(train.command, arguments) == 0
    return place / "runs" / "5", arguments, printed.getvalue()


@pytest.fixture(scope="session")
def trained_checkpoint(trained: tuple[Path, list[str], str]) -> Path:
    """The last checkpoint of ``trained``, to be read."""
    return max((trained[0] / "checkpoints").iterdir())


@pytest.fixture
def checkpoint(trained_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(trained_checkpoint, tmp_path / "checkpoint"))
