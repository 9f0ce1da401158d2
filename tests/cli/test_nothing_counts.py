"""Data of which nothing can be learned, or on which nothing can be measured: told before any work, and what
the message says to do works.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.cli import evaluate, prepare_data, search, train
from dbf_ray.cli.options import run_command
from tests.cli.conftest import write_ships
from tests.data.label_writers import write_yolo_obb

Refused = Callable[..., str]
SHIP = "8 8 40 8 40 24 8 24 ship"


def relabel(split: Path, text: str) -> None:
    for file in (split / "labelTxt").iterdir():
        file.write_text(text)


def warned(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: map50")]


VAL: dict[str, tuple[str, str]] = {
    "no labels": ("", "map50 will be none, since in {root} (val) none of 2 images has an object"),
    "a header alone": ("imagesource:x\ngsd:1\n", "none of 2 images has an object"),
    "all difficult": (f"{SHIP} 1\n", "all 2 objects of 2 images are difficult, which evaluation ignores"),
    "classes never trained": (
        f"{SHIP.replace('ship', 'plane')} 0\n",
        "map50 can only be 0, since in {root} (val) all objects are of classes not trained on (plane)",
    ),
}


@pytest.mark.parametrize("case", VAL)
def test_a_val_on_which_nothing_counts(
    case: str,
    tiny: list[str],
    root: Path,
    searching: list[str],
    refused: Refused,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, reason = VAL[case]
    tiny = [*tiny, "--data.classes", "[ship,plane]"]
    relabel(root / "val", text)
    line = refused(search.command, [*tiny, *searching])
    assert "a search compares trials by map50, but map50" in line
    assert reason.format(root=root) in line
    assert run_command(train.command, [*tiny, "--dry-run"]) == 0
    assert f"warning: {'map50'}" in (shown := capsys.readouterr().out)
    assert reason.format(root=root) in shown
    assert run_command(train.command, tiny) == 0  # it may be trained all the same
    (warning,) = warned(capsys)
    assert reason.format(root=root) in warning
    step = re.search(r"hold images of train out by (.*?), or correct the labels", line)
    assert step is not None
    assert run_command(search.command, [*tiny, *searching, *step[1].split()]) == 0
    assert (root.parent / "studies").exists()


def test_correcting_the_labels_is_the_other_way(
    tiny: list[str], root: Path, searching: list[str], refused: Refused
) -> None:
    relabel(root / "val", "")
    refused(search.command, [*tiny, *searching])
    relabel(root / "val", f"{SHIP} 0\n")
    assert run_command(search.command, [*tiny, *searching]) == 0


def test_what_is_held_out_to_select_on(
    tiny: list[str], root: Path, searching: list[str], refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six of eight images are empty: there are folds without an object."""
    options = [*tiny, "--training.batch_size", "2", "--data.selection_fraction", "0.25"]
    found = {}
    for fold in range(4):
        relabel(root / "train", "")
        for name in ("003", "005"):
            (root / "train" / "labelTxt" / f"{name}.txt").write_text(f"{SHIP} 0\n")
        status = run_command(train.command, [*options, "--dry-run", "--data.selection_fold", str(fold)])
        found[fold] = (status, "warning: map50 will be none" in capsys.readouterr().out)
    bad = [fold for fold, (status, told) in found.items() if status == 0 and told]
    good = [fold for fold, (status, told) in found.items() if status == 0 and not told]
    assert bad
    assert good
    options += ["--data.selection_fold"]
    line = refused(search.command, [*options, str(bad[0]), *searching])
    assert "what data.selection_fraction 0.25 holds out of train" in line
    step = re.search(r"give --data.selection_fold (\d+), or", line)
    assert step is not None
    assert int(step[1]) in good
    assert run_command(search.command, [*options, step[1], *searching]) == 0


def test_a_part_that_is_left_without_objects(tiny: list[str], root: Path, refused: Refused) -> None:
    options = [
        *tiny,
        "--training.batch_size",
        "2",
        "--data.selection_fraction",
        "0.5",
        "--data.classes",
        "[ship]",
    ]
    for name in sorted(file.stem for file in (root / "train" / "labelTxt").iterdir()):
        relabel(root / "train", "")
        (root / "train" / "labelTxt" / f"{name}.txt").write_text(f"{SHIP} 0\n")
        if run_command(train.command, [*options, "--dry-run"]) == 2:  # the one with an object is held out
            break
    line = refused(train.command, options)
    assert re.search(r"none of the \d images that data.selection_fraction 0.5 leaves to train on", line)
    assert run_command(train.command, [*options, "--dry-run", "--data.allow_empty", "true"]) == 0


@pytest.mark.parametrize("classes", [[], ["--data.classes", "[ship]"]], ids=["found", "given"])
@pytest.mark.parametrize("drop", [[], ["--data.drop_empty", "true"]], ids=["all", "drop"])
def test_a_training_split_without_an_object(
    classes: list[str],
    drop: list[str],
    tiny: list[str],
    root: Path,
    searching: list[str],
    refused: Refused,
) -> None:
    relabel(root / "train", "")
    options = [*tiny, *classes, *drop]
    for command, more in ((train.command, []), (search.command, searching)):
        line = refused(command, [*options, *more])
        assert str(root) in line
        assert "data.allow_empty" in line
    step = ["--data.classes", "[ship]", "--data.drop_empty", "false", "--data.allow_empty", "true"]
    assert run_command(train.command, [*tiny, *step]) == 0
    assert run_command(search.command, [*tiny, *step, *searching]) == 0


def test_labels_that_nobody_finds(tiny: list[str], tmp_path: Path, refused: Refused) -> None:
    """In YOLO's layout an image without a label file has no objects: names that differ leave none at all."""
    ship = [((10.0, 10.0, 50.0, 10.0, 50.0, 30.0, 10.0, 30.0), "ship", False)]
    for split, count in (("train", 8), ("val", 2)):
        write_yolo_obb(tmp_path / "yolo", split, {f"{split}{n}": ship for n in range(count)})
    options = [*tiny, "--data.name", "yolo_obb", "--data.root", str(tmp_path / "yolo")]
    for file in (tmp_path / "yolo" / "labels" / "train").iterdir():
        file.rename(file.with_name(f"rf_{file.name}"))
    line = refused(train.command, options)
    assert "none of 8 images has an object, so there is nothing to learn" in line
    assert "dbf prepare-data check" in line
    assert prepare_data.main(["check", str(tmp_path / "yolo"), "--workers", "0"]) == 1
    for file in (tmp_path / "yolo" / "labels" / "train").iterdir():
        file.rename(file.with_name(file.name.removeprefix("rf_")))
    assert run_command(train.command, options) == 0


def test_a_training_split_of_difficult_objects_is_learned_from(tiny: list[str], root: Path) -> None:
    relabel(root / "train", f"{SHIP} 1\n")
    assert run_command(train.command, tiny) == 0


def test_an_undivided_folder_is_evaluated_on_what_it_trains_on(
    tiny: list[str], root: Path, searching: list[str], refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root)
    write_ships(root, 8)
    relabel(root, f"{SHIP} 1\n")
    assert run_command(search.command, [*tiny, *searching]) == 2
    assert "all 8 objects of 8 images are difficult" in capsys.readouterr().err
    relabel(root, f"{SHIP} 0\n")
    assert run_command(search.command, [*tiny, *searching]) == 0


def test_a_policy_that_listens_to_map50_is_told_of(
    tiny: list[str], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relabel(root / "val", "")
    policy = ["--freezing.policy", "plateau", "--freezing.patience", "1", "--freezing.min_delta", "0.1"]
    assert run_command(train.command, [*tiny, *policy, "--dry-run"]) == 0
    assert "policy plateau decides by map50, and so by nothing" in capsys.readouterr().out


def test_an_evaluation_says_why_a_metric_is_none(
    checkpoint: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relabel(root / "val", f"{SHIP} 1\n")
    assert run_command(evaluate.command, ["--checkpoint", str(checkpoint), "--data.root", str(root)]) == 0
    printed = capsys.readouterr()
    assert "map50            none (no object counts)" in printed.out
    assert f"warning: map50 is none, since in {root} (val) all 2 objects" in printed.err


def test_a_merge_says_why_a_metric_is_none(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relabel(root / "val", "")
    (tmp_path / "Task1").mkdir()
    (tmp_path / "Task1" / "Task1_ship.txt").write_text("000 0.9 8 16 40 16 40 32 8 32\n")
    arguments = ["merge", str(tmp_path / "Task1"), str(tmp_path / "merged"), "--labels", str(root)]
    assert prepare_data.main(arguments) == 0
    printed = capsys.readouterr()
    assert "merged/map50             none (no object counts)" in printed.out
    assert (
        f"warning: merged/map50 is none, since in {root} (val) none of 2 images has an object" in printed.err
    )


def test_a_split_into_patches_warns(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relabel(root / "val", "")
    arguments: list[Any] = ["split", root, tmp_path / "out", "--size", 48, "--overlap", 8, "--workers", 0]
    assert prepare_data.main([*map(str, arguments)]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert f"none of 2 images of {tmp_path / 'out' / 'val'} has an object" in line
