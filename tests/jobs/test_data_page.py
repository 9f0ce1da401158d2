"""The way of docs/data.md from labels to a submission, command by command, on real DOTA images; shorter."""

from __future__ import annotations

import re
import shlex
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dbf_ray.config import load_config
from dbf_ray.evaluation.submission import read_task1
from jobs import predict, prepare_data, train
from jobs.command_line import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "data.md"
SECTION = "## Large images: from labels to a submission"
COMMANDS: dict[str, Callable[[Sequence[str] | None], int]] = {
    "prepare-data": prepare_data.run,
    "predict": predict.run,
    "train": lambda arguments: main(train.command, arguments),
}
FASTER = [
    "--data.image_size",
    "128",
    "--training.epochs",
    "1",
    "--training.threads",
    "1",
    "--tracking.mlflow",
    "false",
]


def commands() -> list[list[str]]:
    """The arguments of each command of the section, after ``dbf``."""
    section = PAGE.read_text().split(f"{SECTION}\n", 1)[1].split("\n## ", 1)[0]
    [block] = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    lines = [
        line for line in block.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")
    ]
    assert all(line.startswith("dbf ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def test_from_labels_to_a_submission(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, weights = (
        shared / "data" / "dota_sample",
        shared / "weights" / "mobilenet_v2_features_torchvision.pth",
    )
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.chdir(tmp_path)
    done = []
    for name, *arguments in commands():
        if name == "fetch-weights":
            continue  # these weights are at hand
        given = [argument.replace("epoch-00012", "epoch-00001") for argument in arguments]
        given = [
            str(weights) if argument.endswith("mobilenet_v2.pth") else re.sub(r"^DIR\b", str(data), argument)
            for argument in given
        ]
        assert COMMANDS[name]([*given, *(FASTER if name == "train" else [])]) == 0, (
            name,
            capsys.readouterr().err,
        )
        done.append(name)
    assert done == ["prepare-data", "train", "predict", "predict", "prepare-data"]
    assert "merged/map50" in (tmp_path / "runs" / "on-patches" / "epochs.jsonl").read_text()
    for name in ("P0003", "P0005", "P0075", "P1888"):
        for output in (f"labels/{name}.txt", f"geojson/{name}.geojson", f"overlays/{name}.jpg"):
            assert (tmp_path / "predictions" / output).is_file()
    assert "merged/map50 " in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "merged" / "submission.zip") as archive:
        names = sorted(archive.namelist())
    assert names == [
        f"Task1_{name}.txt" for name in ("large-vehicle", "roundabout", "small-vehicle", "swimming-pool")
    ]
    images, _ = read_task1(tmp_path / "merged" / "submission.zip")
    assert set(images) <= {"P0003", "P0005", "P0075", "P1888"}


def test_the_section_trains_as_long_as_it_says() -> None:
    [training] = [arguments for name, *arguments in commands() if name == "train"]
    shipped = f"{training[training.index('--config') + 1]}.yaml"
    [file] = [*(ROOT / "jobs").rglob(shipped), *(ROOT / "dbf_ray").rglob(shipped)]
    text = PAGE.read_text().split(f"{SECTION}\n", 1)[1]
    assert f"epoch-{load_config(file).training.epochs:05d}" in text
