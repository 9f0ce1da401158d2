from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dbf_ray.errors import DataError
from dbf_ray.predict.images import find_images, measure, stamp_of
from tests.predict.conftest import save

BLACK = np.zeros((5, 7, 3), np.uint8)


def test_images_of_a_folder_and_those_below_it(tmp_path: Path) -> None:
    for name in (
        "b.png",
        "a.JPG",
        "sub/deep/c.tif",
        "sub/a.bmp",
        ".hidden.png",
        ".cache/d.png",
        "out/overlays/a.jpg",
        "v1.2.png",
    ):
        save(tmp_path / name, BLACK)
    for name in ("labels.txt", "sub/more.txt", "README"):
        (tmp_path / name).write_text("")
    named, left_out = find_images(tmp_path, tmp_path / "out")
    assert list(named) == ["a", "b", "sub/a", "sub/deep/c", "v1.2"]
    assert named["sub/deep/c"] == tmp_path / "sub" / "deep" / "c.tif"
    assert left_out == "3 other files are passed over: 2 .txt, 1 no suffix"


def test_one_image(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png", BLACK)
    assert find_images(file, tmp_path / "out") == ({"a": file}, "")


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    save(tmp_path / "real" / "a.png", BLACK)
    (tmp_path / "images").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "images" / "link")
    os.symlink(tmp_path / "images", tmp_path / "images" / "round")
    assert list(find_images(tmp_path / "images", tmp_path / "out")[0]) == ["link/a"]


def test_places_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images must be there, .*nowhere is not; give an image"):
        find_images(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "a.txt").write_text("")
    for place in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(DataError, match=r"must be or hold images \(\.png, .*found none; give another"):
            find_images(place, tmp_path / "out")


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("sub/a.png", "sub/a.jpg"):
        save(tmp_path / name, BLACK)
    with pytest.raises(
        DataError,
        match=r"a\.png: images must differ in more than their suffix, a\.jpg is called the same; rename",
    ):
        find_images(tmp_path, tmp_path / "out")


def test_sizes_are_read_from_headers_however_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(tmp_path / "a.png", BLACK)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    picture = measure(file, "sub/a")
    assert (picture.name, picture.size, picture.stamp) == ("sub/a", (5, 7), stamp_of(file))
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(DataError, match="images must be readable, got: No such file"):
        stamp_of(tmp_path / "gone.png")


def test_what_systems_leave_is_no_input(tmp_path: Path) -> None:
    save(tmp_path / "a.png", BLACK)
    for name in ("._a.png", "Thumbs.db", ".DS_Store", "__MACOSX/a.png", "__MACOSX/._a.png", "@eaDir/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x00\x05")
    assert find_images(tmp_path, tmp_path / "out") == ({"a": tmp_path / "a.png"}, "")


def test_images_of_types_that_are_not_read(tmp_path: Path) -> None:
    """They are there to be named, unless they have been converted; alone they are refused."""
    for name in ("a.webp", "b.png", "b.gif"):
        save(tmp_path / name, BLACK)
    named, left_out = find_images(tmp_path, tmp_path / "out")
    assert named == {"a": tmp_path / "a.webp", "b": tmp_path / "b.png"}
    assert left_out == "1 other files are passed over: 1 .gif"
    with pytest.raises(
        DataError, match=r"a\.webp: images must be .* this is a WebP image, .* convert it to PNG"
    ):
        measure(named["a"], "a")
    (tmp_path / "b.png").unlink()
    for place in (tmp_path, tmp_path / "a.webp"):
        with pytest.raises(
            DataError, match=r"found .*a\.webp: .* this is a WebP image, .*; convert it to PNG"
        ):
            find_images(place, tmp_path / "out")
