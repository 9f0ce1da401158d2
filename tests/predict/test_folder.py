from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dbf_ray.errors import ConfigError
from dbf_ray.evaluation.merge import Detections
from dbf_ray.files import whole_file
from dbf_ray.predict.folder import OutFolder
from dbf_ray.predict.images import Picture
from dbf_ray.predict.partial import Partial
from tests.predict.conftest import content

SETTINGS = {"checkpoint": "/a", "batch": 4, "formats": ["dota"], "window": 64, "classes": ["ship"]}
PICTURE = Picture(Path("a.png"), "sub/a", (5, 7), (123, 456))


def test_other_settings_are_refused_with_both_values(tmp_path: Path) -> None:
    OutFolder(tmp_path / "out", SETTINGS).check()
    OutFolder(tmp_path / "out", SETTINGS).begin()
    OutFolder(tmp_path / "out", {**SETTINGS, "checkpoint": "/moved", "batch": 1}).check()
    before = content(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r'with other settings: window 64 there, 32 now; classes \["ship"\] there, \["car"\] now; give '
        r"the same, or",
    ):
        OutFolder(tmp_path / "out", {**SETTINGS, "window": 32, "classes": ["car"]}).check()
    assert content(tmp_path) == before


@pytest.mark.parametrize("spoiled", ["", "{", "[]", '{"window": 64}'])
def test_a_spoiled_note_of_the_settings_is_another_prediction(tmp_path: Path, spoiled: str) -> None:
    (tmp_path / "predict.json").write_text(spoiled)
    with pytest.raises(ConfigError, match="other settings"):
        OutFolder(tmp_path, SETTINGS).check()


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for root in (tmp_path, tmp_path / "file"):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(
            ConfigError,
            match=r"--out must be a new folder or one that a prediction was begun in, .* holds other files",
        ):
            OutFolder(root, SETTINGS).check()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "labels"]


def test_what_is_complete(tmp_path: Path) -> None:
    folder = OutFolder(tmp_path, SETTINGS)
    folder.mark_done(PICTURE, 1, 2)
    assert folder.done("sub/a", PICTURE.stamp) is None, "its output is not there"
    folder.file("dota", "sub/a").parent.mkdir(parents=True)
    folder.file("dota", "sub/a").write_text("")
    record = folder.done("sub/a", PICTURE.stamp)
    assert record is not None
    assert (record["height"], record["width"], record["windows"], record["detections"]) == (5, 7, 1, 2)
    assert folder.done("sub/a", (123, 457)) is None, "the file has changed"
    (tmp_path / "done" / "sub" / "a.json").write_text("{")
    assert folder.done("sub/a", PICTURE.stamp) is None
    folder.forget("sub/a")
    assert content(tmp_path) == {}


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "a.txt"
    with whole_file(file) as partial:
        partial.write_text("first")
        assert not file.exists()
    with pytest.raises(TypeError), whole_file(file) as partial:
        partial.write_text(2)  # type: ignore[arg-type]
    assert file.read_text() == "first"
    assert list(file.parent.iterdir()) == [file]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    folder = OutFolder(tmp_path, SETTINGS)
    for name in (
        "labels/.a.txt.7",
        "done/sub/.a.json.x8",
        "Task1/.Task1_ship.txt.7",
        "labels/a.txt",
        ".lock",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half")
    folder.begin()
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {".lock", "labels/a.txt", "predict.json"}
    assert json.loads((tmp_path / "predict.json").read_text()) == SETTINGS


def found(number: int) -> Detections:
    """``number`` detections whose numbers have no short decimal form."""
    return Detections(
        torch.arange(5.0 * number).reshape(-1, 5) / 3, torch.arange(number) / 7, torch.arange(number)
    )


def test_windows_that_were_kept_come_back(tmp_path: Path) -> None:
    canvas = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    partial = Partial(tmp_path / "a", PICTURE, 9, every=0)
    assert partial.resume(None) == (0, [])
    for count in (2, 0):
        partial.add(found(count))
    partial.keep(canvas)
    partial.keep(canvas)  # nothing new
    partial.add(found(3))
    partial.keep(canvas + 1)
    partial.add(found(4))  # not kept
    again, empty = Partial(tmp_path / "a", PICTURE, 9, every=0), np.zeros_like(canvas)
    done, parts = again.resume(empty)
    assert done == 3
    assert (empty == canvas + 1).all()
    for name in Detections._fields:
        wanted = torch.cat([getattr(found(count), name) for count in (2, 0, 3)])
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), wanted)
        assert all(getattr(part, name).dtype == wanted.dtype for part in parts)
    again.add(found(1))
    again.keep(canvas)
    assert sorted(file.name for file in (tmp_path / "a").glob("*.npz")) == [
        f"{a:08d}-{b:08d}.npz" for a, b in ((0, 2), (2, 3), (3, 4))
    ]
    again.remove()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "spoil",
    ["another file", "more windows", "no canvas", "another canvas", "torn canvas", "torn part", "empty part"],
)
def test_parts_that_do_not_fit_are_dropped(tmp_path: Path, spoil: str) -> None:
    canvas = np.zeros((4, 5, 3), np.uint8)
    partial = Partial(tmp_path / "a", PICTURE, 9, every=0)
    partial.add(found(2))
    partial.keep(canvas)
    picture, windows = PICTURE, 9
    (part,) = (tmp_path / "a").glob("*.npz")
    if spoil == "another file":
        picture = Picture(PICTURE.file, PICTURE.name, PICTURE.size, (1, 1))
    elif spoil == "more windows":
        windows = 10
    elif spoil == "no canvas":
        (tmp_path / "a" / "canvas.npy").unlink()
    elif spoil == "another canvas":
        canvas = np.zeros((4, 6, 3), np.uint8)
    elif spoil == "torn canvas":
        (tmp_path / "a" / "canvas.npy").write_bytes((tmp_path / "a" / "canvas.npy").read_bytes()[:-9])
    else:
        part.write_bytes(part.read_bytes()[:-40] if spoil == "torn part" else b"")
    assert Partial(tmp_path / "a", picture, windows, every=0).resume(canvas) == (0, [])
    assert not (tmp_path / "a").exists()


def test_a_gap_ends_what_is_taken(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "a", PICTURE, 9, every=0)
    for count in (1, 2, 3):
        partial.add(found(count))
        partial.keep(None)
    (tmp_path / "a" / "00000001-00000002.npz").unlink()
    done, parts = Partial(tmp_path / "a", PICTURE, 9, every=0).resume(None)
    assert (done, len(parts)) == (1, 1)


def test_nothing_is_kept_before_it_is_time(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "a", PICTURE, 9, every=1000)
    partial.add(found(1))
    partial.keep(None)
    assert not (tmp_path / "a").exists()
