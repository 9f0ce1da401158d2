"""Names of images that are no text, of images in folders, and of outputs that no file system takes."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from dbf_ray.errors import ConfigError, DataError
from dbf_ray.evaluation.submission import read_task1
from dbf_ray.predict.folder import OutFolder
from dbf_ray.predict.images import find_images
from dbf_ray.predict.job import predict_files
from tests.predict.conftest import boxes_in, boxes_of, draw, make_folder, make_task, save, scattered

GBK = os.fsdecode("影像".encode("gbk"))


def test_names_that_are_no_text_and_the_images_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All outputs of all images, in folders like the images'; every text is UTF-8, and can be printed."""
    names = [f"{GBK}/0001", f"{GBK}/0002", "siteA/0001", "zz"]
    for seed, name in enumerate(names):
        save(tmp_path / "images" / f"{name}.png", draw((40, 50), scattered((40, 50), seed)))
    (tmp_path / "images" / GBK / "broken.png").write_bytes(b"")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    monkeypatch.setattr(sys, "stderr", stream)
    files, _ = find_images(tmp_path / "images", tmp_path / "out")
    folder = make_folder(tmp_path / "out")
    for skipped in (0, len(names)):
        result = predict_files(make_task(), files, folder)
        assert (result["images"], result["skipped"]) == (len(names) + 1, skipped)
        assert [one["image"] for one in result["failed"]] == [f"{GBK}/broken"]
        json.dumps(result)
    for seed, name in enumerate(names):
        assert boxes_in(folder.file("dota", name)) == boxes_of(scattered((40, 50), seed))
        written = json.loads(folder.file("geojson", name).read_bytes().decode("utf-8"))
        assert written["image"] == f"{name}.png"
        assert folder.file("overlay", name).is_file()
    for file in (tmp_path / "out" / "Task1").glob("*.txt"):
        file.read_bytes().decode("utf-8")
    shown = GBK.encode("utf-8", "backslashreplace").decode()
    assert set(read_task1(tmp_path / "out")[0]) == {f"{shown}/0001", f"{shown}/0002", "siteA/0001", "zz"}


def test_outputs_that_would_have_names_too_long(tmp_path: Path) -> None:
    """Said before anything is written; what just fits is written, half-written files too."""
    name = "n" * (255 - len(".geojson"))
    files = {name: save(tmp_path / "images" / f"{name}.png", draw((40, 50), scattered((40, 50))))}
    assert predict_files(make_task(every=0.0), files, make_folder(tmp_path / "out"))["failed"] == []
    folder = OutFolder(tmp_path / "other", {"formats": ["dota", "geojson"]})
    folder.check_names([name, "é" * 120])
    for long in (f"{name}n", f"{name}n/a", "é" * 124):
        with pytest.raises(
            DataError, match=r"names of files must be within 255 bytes, .* 25\d; give it a shorter"
        ):
            folder.check_names(["a", long])
    OutFolder(tmp_path / "other", {"formats": ["dota"]}).check_names([f"{name}nn"])


def test_a_folder_that_only_a_system_wrote_to_is_new(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (".DS_Store", "Thumbs.db", ".lock"):
        (out / name).write_bytes(b"")
    OutFolder(out, {"formats": ["dota"]}).check()
    (out / ".mine").write_text("")
    with pytest.raises(ConfigError, match="holds other files"):
        OutFolder(out, {"formats": ["dota"]}).check()
