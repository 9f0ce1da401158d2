"""A split without an object is an error, one of difficult objects alone a warning; neither is said twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbf_ray.data.check import Report, check_dataset, severity
from dbf_ray.data.readers import READERS
from tests.data.label_writers import FORMATS

SHIP = (10.0, 10.0, 50.0, 12.0, 48.0, 32.0, 8.0, 30.0)


def check(root: Path, name: str, **splits: dict[str, Any]) -> Report:
    for split, images in splits.items():
        FORMATS[name].write(root, split, images)
    return check_dataset(root, READERS[name], workers=0)


@pytest.mark.parametrize("empty", ["train", "val"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_split_without_an_object(name: str, empty: str, tmp_path: Path) -> None:
    whole = {f"{split}{n}": [(SHIP, "ship", False)] for n in range(2) for split in ["train", "val"]}
    splits = {
        split: {key: [] if split == empty else value for key, value in whole.items() if key.startswith(split)}
        for split in ("train", "val")
    }
    report = check(tmp_path, name, **splits)
    (problem,) = [one for one in report.problems if one.kind == "no_objects"]
    assert problem.file == tmp_path / empty
    assert "none of 2 images has one" in problem.message
    assert report.errors == 1
    FORMATS[name].write(tmp_path, empty, {key: whole[key] for key in splits[empty]})  # what it says to do
    assert check_dataset(tmp_path, READERS[name], workers=0).errors == 0


def test_objects_that_are_all_difficult(tmp_path: Path) -> None:
    hard = [(SHIP, "ship", True)]
    report = check(tmp_path, "dota", train={"a": hard}, val={"b": hard, "c": []})
    (problem,) = report.problems
    assert (problem.kind, problem.file, severity(problem.kind)) == (
        "nothing_counts",
        tmp_path / "val",
        "warning",
    )
    assert "all 1 objects of 2 images" in problem.message


def test_labels_that_cannot_be_read_are_told_alone(tmp_path: Path) -> None:
    FORMATS["dota"].write(tmp_path, "train", {"a": [(SHIP, "ship", False)]})
    (tmp_path / "train" / "labelTxt" / "a.txt").write_text("1 2 3 ship\n")
    assert [one.kind for one in check_dataset(tmp_path, READERS["dota"], workers=0).problems] == ["syntax"]


def test_a_test_set_may_be_images_alone(tmp_path: Path) -> None:
    report = check(tmp_path, "coco", train={"a": [(SHIP, "ship", False)]}, test={"b": [], "c": []})
    assert report.problems == []


def test_an_undivided_folder(tmp_path: Path) -> None:
    FORMATS["dota"].write(tmp_path, ".", {"a": []})
    (problem,) = check_dataset(tmp_path, READERS["dota"], workers=0).problems
    assert (problem.kind, problem.file) == ("no_objects", tmp_path)
