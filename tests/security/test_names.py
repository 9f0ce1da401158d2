"""Names that others have chosen, of runs, studies, images and classes: files stay in their folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dbf_ray.cli.options import run_command
from dbf_ray.config import load_config
from dbf_ray.data.patches.cutting import SplitSettings, run_task
from dbf_ray.data.patches.split import prepare_out, split_work
from dbf_ray.data.readers import READERS
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.evaluation.merge import Detections
from dbf_ray.evaluation.submission import read_task1, text_names, write_task1
from dbf_ray.run import run_directory
from dbf_ray.search.checked import check_name

OUTSIDE = ["../x", "..", ".", "a/b", "/x", "a\\b", "a\0b", "a\nb", "\x1b[31m", ""]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_run_or_a_study_cannot_be_called_so(name: str) -> None:
    with pytest.raises(ConfigError):
        check_name(name)
    with pytest.raises(ConfigError, match="name: "):
        load_config(None, {"name": name} if name else {"name": " \t"} | {"name": "/"})


def test_a_search_of_a_study_outside_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbf_ray.cli import search

    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    options = ["--config", "demo", "--space", "rho", "--trials", "1", "--tracking.mlflow", "false"]
    assert run_command(search.command, [*options, "--study", "../x"]) == 2
    assert [file.name for file in tmp_path.rglob("*")] == ["studies"]


@pytest.mark.parametrize(
    "freezing",
    [
        {"policy": "step", "../../x": 1},
        {"policy": "../../x"},
        {"policy": "step", "rho": "../../x"},
        {"policy": "capped", "inner": {"name": "../x", "../../y": "/z"}},
    ],
)
def test_the_folder_of_a_run_is_in_the_folder_of_runs(freezing: dict[str, Any]) -> None:
    config = load_config(None, {"freezing": freezing, "runs_dir": "runs"})
    assert run_directory(config).parent == Path("runs")
    assert ".." not in run_directory(config).parts


def data_of_another(root: Path, name: str) -> Path:
    """A folder in COCO's format whose only image is called ``name``."""
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    corners = [4, 4, 60, 4, 60, 60, 4, 60]
    content = {
        "images": [{"id": 1, "file_name": name, "width": 64, "height": 64}],
        "categories": [{"id": 1, "name": "../../ship"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [corners], "bbox": [4, 4, 56, 56]}
        ],
    }
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("how", ["absolute", "relative"])
def test_patches_of_an_image_that_lies_elsewhere_are_written_below_out(tmp_path: Path, how: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(elsewhere / "a.png")
    name = str(elsewhere / "a.png") if how == "absolute" else "../../elsewhere/a.png"
    root, out = data_of_another(tmp_path / "in" / "data", name), tmp_path / "out"
    before = {*tmp_path.rglob("*")}
    settings = SplitSettings(size=64, overlap=0)
    work = split_work(READERS["coco"], root, out, settings)
    prepare_out(work, root, out, settings)
    for task in work.tasks:
        run_task(task)
    written = {*tmp_path.rglob("*")} - before
    assert {file.suffix for file in written} >= {".png", ".txt"}
    assert all(out.resolve() == file.resolve() or out.resolve() in file.resolve().parents for file in written)


HOSTILE_CLASSES = ["../../x", "/etc/x", "a/b", "..", "a\nb", "a\0b", "C:\\x"]


@pytest.mark.parametrize("name", HOSTILE_CLASSES)
def test_files_of_classes_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a" / "b" / "Task1"
    box = Detections(torch.tensor([[5.0, 5, 4, 4, 0]]), torch.tensor([0.5]), torch.tensor([0]))
    files = write_task1({"P\n0001 0.9": box}, [name], folder)
    assert {file.parent for file in tmp_path.rglob("*") if file.is_file()} == {folder}
    assert [len(file.read_text().splitlines()) for file in files] == [1]
    images, classes = read_task1(folder)
    assert (list(images), classes) == (["P_0001_0.9"], text_names([name]))


def test_a_split_that_leaves_the_data_is_none(tmp_path: Path) -> None:
    (tmp_path / "secret" / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "secret" / "images" / "a.png")
    root = tmp_path / "data"
    for part in ("images", "labelTxt", "labels"):
        (root / "train" / part).mkdir(parents=True)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(root / "train" / "images" / "a.png")
    for key in ("data.train_split", "data.val_split"):
        for split in ("../secret", str(tmp_path / "secret"), "..", "a\0"):
            with pytest.raises(ConfigError, match="split"):
                load_config(None, {"data.root": str(root), key: split})


def test_a_link_out_of_a_folder_of_outputs_is_not_followed_when_it_is_emptied(tmp_path: Path) -> None:
    """A folder of patches that another process prepared: what is removed there stays there."""
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    root, out = data_of_another(tmp_path / "data", str(tmp_path / "a.png")), tmp_path / "out"
    settings = SplitSettings(size=64, overlap=0)
    work = split_work(READERS["coco"], root, out, settings)
    prepare_out(work, root, out, settings)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "letter.txt").write_text("x")
    os.symlink(precious, out / "train" / "images" / "link")
    prepare_out(work, root, out, settings)
    assert (precious / "letter.txt").exists()


def test_names_do_not_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def command(_: object) -> None:
        raise DataError("\x1b]0;title\x07a\r\nb\x9b31m \u202e é 船.png")

    assert run_command(command) == 2
    assert capsys.readouterr().err == "error: \\x1b]0;title\\x07a b\\x9b31m \\u202e é 船.png\n"
