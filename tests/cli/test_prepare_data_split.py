"""``jobs.prepare_data split`` and ``merge`` as they are typed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.cli import prepare_data
from dbf_ray.data.readers.dota import read_labels
from dbf_ray.evaluation.submission import read_task1
from dbf_ray.locks import only_writer

Refused = Callable[..., str]


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert prepare_data.main([*map(str, arguments), "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


def test_a_split_and_a_second_one(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "split",
        root,
        tmp_path / "out",
        "--size",
        "48",
        "--overlap",
        "16",
        "--rates",
        "1.0",
        "0.75",
        "--workers",
        "0",
    )
    first = run(capsys, *arguments)
    # 64 px: two by two windows of 48 px, one of 64
    assert (first["written"], first["kept"]) == (10 * 5, 0)
    assert first["patches_per_second"] > 0
    again = run(capsys, *arguments)
    assert (again["written"], again["kept"], again["objects"]) == (0, 50, first["objects"])
    assert len(list((tmp_path / "out" / "val" / "images").iterdir())) == 10


def test_the_outlines_that_mmrotate_would_label(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first ship spans x 8 to 40; of a window of 32 px from 16 it shows 24 of 32 columns."""
    options = ("--size", "32", "--overlap", "16", "--workers", "0")
    run(capsys, "split", root, tmp_path / "cut", *options)
    run(capsys, "split", root, tmp_path / "whole", *options, "--keep-whole")
    xs = {}
    for name in ("cut", "whole"):
        [ship] = read_labels(tmp_path / name / "train" / "labelTxt" / "000__32__16___16.txt").objects
        xs[name] = (min(ship.corners[::2]), max(ship.corners[::2]))
        assert ship.difficult
    assert xs == {"cut": (0, 24), "whole": (-8, 24)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split", "{root}", "{tmp}/out", "--overlap", "1024"], "overlap in [0, size), got 1024 and 1024"),
        (["split", "{tmp}/nowhere", "{tmp}/out"], "nowhere is not there"),
        (["split", "{root}", "{root}/patches"], "outside the data"),
        (
            ["split", "{root}", "{tmp}/out", "--classes", "dota-v9"],
            "classes must be among dota-v9, got 'ship'",
        ),
        (["split", "{root}", "{tmp}/out", "--rate", "2"], "unknown option --rate; did you mean --rates?"),
        (["merge", "{tmp}/nowhere", "{tmp}/out"], "must be a folder or a zip"),
        (["merge", "{root}", "{tmp}/out"], "must hold text files Task1_CLASS.txt"),
        (["split", "{root}", "{tmp}/out", "--workers", "-1"], "--workers must be >= 0, got -1"),
        (
            ["split", "{root}", "{tmp}/out", "--size", "64", "--overlap", "8", "--rates", "4"],
            "at least 32 pixels wide, got 16",
        ),
        (["merge", "{root}", "{tmp}/out", "--nms", "0"], "must be in (0, 1], got 0"),
    ],
)
def test_what_is_refused(
    root: Path, tmp_path: Path, refused: Refused, arguments: list[str], message: str
) -> None:
    given = [argument.format(root=root, tmp=tmp_path) for argument in arguments]
    assert message in refused(prepare_data.command, given)


def test_an_image_that_breaks_is_named_and_the_others_are_cut(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = root / "val" / "images" / "000.png"
    content = bytearray(broken.read_bytes())
    content[60] ^= 0xFF  # header and end are as they should be
    broken.write_bytes(bytes(content))
    assert (
        prepare_data.main(
            ["split", str(root), str(tmp_path / "out"), "--size", "64", "--overlap", "8", "--workers", "0"]
        )
        == 2
    )
    lines = capsys.readouterr().err.splitlines()
    assert "val/images/000.png: images must be decodable" in lines[-1]
    assert "1 of 10 parts could not be cut" in lines[-1]
    assert len(list((tmp_path / "out").rglob("*.png"))) == 9


def test_merged_files_and_how_good_they_are(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both ships of val, found in two patches each; the one with the lower score two pixels beside it."""
    (tmp_path / "Task1").mkdir()
    lines = []
    for number, (left, top) in enumerate(((8, 16), (10, 19))):
        for x, score, off in ((0, 0.9, 0), (8, 0.8, 2)):
            x1, y1 = left - x + off, top
            corners = (x1, y1, x1 + 32, y1, x1 + 32, y1 + 16, x1, y1 + 16)
            lines.append(f"{number:03d}__56__{x}___0 {score} {' '.join(map(str, corners))}\n")
    (tmp_path / "Task1" / "Task1_ship.txt").write_text("".join(lines))
    result = run(capsys, "merge", tmp_path, tmp_path / "merged", "--labels", root)
    assert (result["patches"], result["images"], result["detections_of_patches"], result["detections"]) == (
        4,
        2,
        4,
        2,
    )
    assert result["merged/map50"] == result["merged/map50_95"] == 1
    images, classes = read_task1(tmp_path / "merged" / "submission.zip")
    assert classes == ["ship"]
    assert images["001"].boxes.tolist() == [[26, 27, 32, 16, 0]]
    with zipfile.ZipFile(tmp_path / "merged" / "submission.zip") as archive:
        assert archive.namelist() == ["Task1_ship.txt"]


def write_ships(folder: Path, *names: str) -> None:
    """Both ships of val exactly, in a file for each class; the first class has them."""
    folder.mkdir(parents=True)
    lines = ["000 0.9 8 16 40 16 40 32 8 32\n001 0.8 10 19 42 19 42 35 10 35\n", *[""] * (len(names) - 1)]
    for name, text in zip(names, lines, strict=True):
        (folder / f"Task1_{name}.txt").write_text(text)


def test_classes_that_the_images_do_not_show_do_not_count(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of many classes writes a file for each."""
    write_ships(tmp_path / "found", "ship", "plane")
    result = run(capsys, "merge", tmp_path / "found", tmp_path / "merged", "--labels", root)
    assert (result["merged/map50"], result["merged/ap50/ship"], result["merged/ap50/plane"]) == (1, 1, None)


def test_what_an_earlier_merge_left_does_not_count(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ships(tmp_path / "planes", "plane")
    write_ships(tmp_path / "ships", "ship")
    run(capsys, "merge", tmp_path / "planes", tmp_path / "merged")
    assert "merged/ap50/plane" not in run(
        capsys, "merge", tmp_path / "ships", tmp_path / "merged", "--labels", root
    )
    assert [file.name for file in (tmp_path / "merged").glob("*.txt")] == ["Task1_ship.txt"]


def test_the_input_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ships(tmp_path / "predictions" / "Task1", "ship")
    assert (
        prepare_data.main(["merge", str(tmp_path / "predictions"), str(tmp_path / "predictions" / "Task1")])
        == 2
    )
    assert "must go to another folder" in capsys.readouterr().err


def test_detections_of_other_images(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ships(tmp_path / "found", "ship")
    file = tmp_path / "found" / "Task1_ship.txt"
    file.write_text(file.read_text().replace("001 ", "elsewhere "))
    assert (
        prepare_data.main(["merge", str(tmp_path / "found"), str(tmp_path / "a"), "--labels", str(root)]) == 0
    )
    printed = capsys.readouterr().err
    assert "1 images with labels have no detections, 1 have" in printed
    assert "1 images with detections have no labels and do not count, the first is elsewhere" in printed
    file.write_text(file.read_text().replace("000 ", "nowhere "))
    assert (
        prepare_data.main(["merge", str(tmp_path / "found"), str(tmp_path / "b"), "--labels", str(root)]) == 2
    )
    assert "detections must be of images of" in capsys.readouterr().err


def test_a_model_that_finds_nothing_scores_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "Task1_ship.txt").write_text("")
    assert (
        run(capsys, "merge", tmp_path / "found", tmp_path / "merged", "--labels", root)["merged/map50"] == 0
    )


def test_names_with_blanks_and_images_that_nobody_opens(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, suffix in (("images", "png"), ("labelTxt", "txt")):
        (root / "val" / folder / f"000.{suffix}").rename(root / "val" / folder / f"my pic.{suffix}")
    (root / "val" / "images" / "my pic.png").write_bytes(b"larger than anybody can open")
    write_ships(tmp_path / "found", "ship")
    file = tmp_path / "found" / "Task1_ship.txt"
    file.write_text(file.read_text().replace("000 ", "my_pic "))
    assert (
        run(capsys, "merge", tmp_path / "found", tmp_path / "merged", "--labels", root)["merged/map50"] == 1
    )


def test_two_splits_at_once_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_writer(tmp_path / "out", "splitting", "go home"):
        assert (
            prepare_data.main(
                [
                    "split",
                    str(root),
                    str(tmp_path / "out"),
                    "--size",
                    "64",
                    "--overlap",
                    "8",
                    "--workers",
                    "0",
                ]
            )
            == 2
        )
    assert "another process is splitting in" in capsys.readouterr().err
