from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from dbf_ray.errors import ConfigError, DataError
from dbf_ray.evaluation.merge import as_found
from dbf_ray.evaluation.submission import paths_note, read_task1, short_names, text_names, write_task1
from dbf_ray.geometry import box_iou_rotated_aligned

CLASSES = ["ship", "plane", "harbor"]
IMAGES = {
    "P0002": as_found([[100.25, 50, 40, 20, 0], [7, 8, 6, 2, -45]], [0.875, 0.5], [0, 1]),
    "P0001": as_found([[1000, 2000, 300, 10, 89]], [0.123456789], [0]),
}


def test_lines_are_as_dota_wants_them(tmp_path: Path) -> None:
    """image score x1 y1 x2 y2 x3 y3 x4 y4; the corners of an upright box are told by hand."""
    files = write_task1(IMAGES, CLASSES, tmp_path / "new")
    assert [file.name for file in files] == ["Task1_ship.txt", "Task1_plane.txt", "Task1_harbor.txt"]
    lines = files[0].read_text().splitlines()
    assert lines[1] == "P0002 0.875 80.25 40.00 120.25 40.00 120.25 60.00 80.25 60.00"
    assert lines[0].startswith("P0001 0.123457 ")
    assert files[2].read_text() == ""


def test_the_archive_holds_the_files_and_nothing_else(tmp_path: Path) -> None:
    files = write_task1(IMAGES, CLASSES, tmp_path)
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert sorted(archive.namelist()) == sorted(file.name for file in files)
        assert all(archive.read(file.name) == file.read_bytes() for file in files)


@pytest.mark.parametrize("source", ["", "submission.zip"])
def test_what_was_written_is_read_again(tmp_path: Path, source: str) -> None:
    write_task1(IMAGES, CLASSES, tmp_path)
    images, names = read_task1(tmp_path / source, CLASSES)
    assert names == CLASSES
    assert set(images) == set(IMAGES)
    for image, found in images.items():
        order = found.scores.argsort(descending=True)
        assert found.labels[order].tolist() == IMAGES[image].labels.tolist()
        torch.testing.assert_close(found.scores[order], IMAGES[image].scores, rtol=0, atol=1e-6)
        assert float(box_iou_rotated_aligned(found.boxes[order], IMAGES[image].boxes).min()) > 0.99
    assert read_task1(tmp_path / source)[1] == sorted(CLASSES)


LINE = "P1 0.5 1 1 9 1 9 4 1 4\n"


def test_a_line_that_is_there_twice_is_one_detection(tmp_path: Path) -> None:
    """As where results were put together twice; another score or place is another detection."""
    file = tmp_path / "Task1_ship.txt"
    file.write_text(f"{LINE}{LINE}\n {LINE.strip()}  \nP1 0.4 1 1 9 1 9 4 1 4\nP2 0.5 1 1 9 1 9 4 1 4\n")
    images, _ = read_task1(tmp_path)
    assert {name: found.scores.tolist() for name, found in images.items()} == {
        "P1": pytest.approx([0.5, 0.4]),
        "P2": [0.5],
    }


def test_two_files_of_one_class_are_refused(tmp_path: Path) -> None:
    """In folders of an archive, or under names that differ in blanks alone."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for folder in ("first", "second"):
            archive.writestr(f"{folder}/Task1_ship.txt", LINE)
    with pytest.raises(
        DataError, match=r"one file Task1_CLASS\.txt for each class, got two for 'ship'; remove"
    ):
        read_task1(tmp_path / "all.zip")
    for name in ("type 1", "type-1"):
        (tmp_path / f"Task1_{name}.txt").write_text(LINE)
    with pytest.raises(DataError, match=r"got two for 'type-1'"):
        read_task1(tmp_path)
    (tmp_path / "Task1_type-1.txt").unlink()
    assert read_task1(tmp_path)[1] == ["type-1"]
    assert read_task1(tmp_path, ["type 1"])[0]["P1"].labels.tolist() == [0]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must hold text files Task1_CLASS\.txt, found none"):
        read_task1(tmp_path)
    with pytest.raises(DataError, match="must be a folder or a zip"):
        read_task1(tmp_path / "nowhere")
    file = tmp_path / "Task1_ship.txt"
    for line in ("P1 0.5 1 2 3", "P1 0.5 1 2 3 4 5 6 7 x", "P1 nan 1 2 3 4 5 6 7 8"):
        file.write_text(f"P1 0.5 1 2 3 2 3 4 1 4\n{line}\n")
        with pytest.raises(DataError, match=r"Task1_ship\.txt, line 2: a line must be image score"):
            read_task1(tmp_path)
    file.write_text("")
    with pytest.raises(DataError, match="classes must be among plane, got 'ship'"):
        read_task1(tmp_path, ["plane"])


def test_names_of_classes_that_no_file_can_have() -> None:
    """Control characters become dashes; what would be one file on some systems, or none, is refused."""
    assert text_names(["a\x00b", "..", "end.", "../up"]) == ["a-b", "..", "end.", "..-up"]
    assert text_names(["x" * 245])
    for classes, message in (
        (["x" * 260], r"names of files must be within 255 bytes, that of class x+\.\.\., Task1_CLASS\.txt"),
        (["é" * 130], "would have 270; rename the class, or write other formats than dota"),
        (["Ship", "ship"], "classes must differ in more than capitals, got 'ship' twice in Ship, ship"),
        (["a\udcb0"], r"names of classes must be text, got 'a\\udcb0'"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            text_names(classes)
        assert "\n" not in str(caught.value)


def test_files_of_other_systems(tmp_path: Path) -> None:
    """Suffixes in capitals are read, macOS's twins are not, and a class in two files is refused."""
    write_task1(IMAGES, CLASSES, tmp_path / "Task1")
    for name in ("ship", "plane", "harbor"):
        file = tmp_path / "Task1" / f"Task1_{name}.txt"
        file = file.rename(file.with_suffix(".TXT"))
        file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07\xff")
    assert set(read_task1(tmp_path)[0]) == set(IMAGES)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("Task1_ship.txt", "__MACOSX/._Task1_ship.txt", "found/Task1_plane.txt"):
            archive.writestr(name, b"\xff" if "__" in name else b"P1 0.5 1 2 3 2 3 4 1 4\n")
    assert read_task1(tmp_path / "a.zip")[1] == ["plane", "ship"]
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("other/Task1_ship.txt", "")
    with pytest.raises(DataError, match="for each class, got two for 'ship'; remove one"):
        read_task1(tmp_path / "a.zip")


def test_names_of_images_without_folders_where_these_do_not_matter() -> None:
    """DOTA's server knows none; patches of two images are told apart even where no two are called alike."""
    assert short_names(["a/P1__32__0___0", "a/P1__32__8___0", "b/P2"]) == {
        "a/P1__32__0___0": "P1__32__0___0",
        "a/P1__32__8___0": "P1__32__8___0",
        "b/P2": "P2",
    }
    names = ["a/P1__32__0___0", "b/P1__32__8___0", "b/P 2"]
    assert list(short_names(names).values()) == ["a/P1__32__0___0", "b/P1__32__8___0", "b/P_2"]
    assert paths_note(["a/P1", "b/P2"]) == ""
    assert "a/P1__32__0___0, b/P1__32__8___0" in paths_note(names)
