"""Images and archives that are made to fill memory, or to start other programs."""

from __future__ import annotations

import os
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dbf_ray.data.images import files, geo_raster
from dbf_ray.data.images.files import check_image, read_image
from dbf_ray.data.images.geo_raster import rasterio
from dbf_ray.data.images.rasters import open_raster
from dbf_ray.errors import DataError
from dbf_ray.evaluation.submission import read_task1

GB = 1_000_000_000
needs_rasterio = pytest.mark.skipif(rasterio() is None, reason="rasterio is not installed")


def png(file: Path, side: int, whole: bool) -> Path:
    """A PNG of a few hundred bytes that says to have side x side pixels; with its ending, or cut off."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = head + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + data + (chunk(b"IEND", b"") if whole else b""))
    return file


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a gigabyte left, whatever runs the tests."""
    for module in (files, geo_raster):
        monkeypatch.setattr(module, "free_memory", lambda: GB)


@pytest.mark.parametrize("whole", [True, False])
def test_a_png_with_far_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path, whole: bool) -> None:
    file, begun = png(tmp_path / "a.png", 30_000, whole), time.monotonic()
    with pytest.raises(DataError, match="too large to decode at once"):
        check_image(file)
    with pytest.raises(DataError, match="too large to decode at once"):
        read_image(file)
    reason = r"30000 x 30000 pixels need 3\.6 GB to be decoded at once, 1\.0 GB are free"
    with pytest.raises(DataError, match=reason), open_raster(file):
        pass
    if not whole:  # its end would be looked for by decoding it
        with pytest.raises(DataError, match=reason):
            check_image(file, any_size=True)
    assert time.monotonic() - begun < 5


def test_more_pixels_than_any_image_has_are_refused_by_the_header(tmp_path: Path) -> None:
    file = png(tmp_path / "a.png", 100_000, True)
    with pytest.raises(DataError, match="too large"):
        check_image(file, any_size=True)


@needs_rasterio
@pytest.mark.parametrize("bands", [3, 6])
def test_a_tiff_with_far_too_many_pixels_is_not_read_whole(tmp_path: Path, bands: int) -> None:
    import rasterio as library

    file = tmp_path / "a.tif"
    shape = {"width": 60_000, "height": 60_000, "count": bands, "dtype": "uint16" if bands == 6 else "uint8"}
    with library.open(file, "w", driver="GTiff", tiled=True, compress="deflate", SPARSE_OK=True, **shape):
        pass
    assert file.stat().st_size < 5_000_000
    with pytest.raises(DataError, match="too large to decode at once"):
        check_image(file)
    with pytest.raises(DataError, match="too large to decode at once"):
        read_image(file)
    assert check_image(file, any_size=True) == (60_000, 60_000)
    with open_raster(file) as raster:  # which takes windows alone
        assert raster.read(59_000, 59_000, 8, 8).shape == (3, 8, 8)


@needs_rasterio
def test_a_tiff_whose_single_block_is_too_large_is_refused(tmp_path: Path) -> None:
    import rasterio as library

    file = tmp_path / "a.tif"
    shape = {"width": 30_000, "height": 30_000, "count": 3, "dtype": "uint8"}
    block = {"tiled": True, "blockxsize": 20_480, "blockysize": 20_480}
    with library.open(file, "w", driver="GTiff", compress="deflate", SPARSE_OK=True, **shape, **block):
        pass
    with pytest.raises(DataError, match=r"a block of it needs 1\.3 GB, 1\.0 GB are free"), open_raster(file):
        pass


def test_a_file_that_another_program_would_draw_is_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow knows EPS by its content, whatever it is called, and starts Ghostscript for it."""
    started = tmp_path / "started"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    file = tmp_path / "a.png"
    file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    Image.init()
    with Image.open(file) as image:
        assert image.format == "EPS"  # so that there is something to guard against
    for look in (check_image, read_image):
        with pytest.raises(DataError, match="not an image file that is known"):
            look(file)
    assert not started.exists()


@needs_rasterio
def test_a_tiff_that_is_none_does_not_open_what_it_names(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "secret.tif")
    file = tmp_path / "a.tif"
    file.write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{tmp_path / 'secret.tif'}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(DataError, match="not an image file that is known"):
        check_image(file)
    with pytest.raises(Exception, match="not recognized"), geo_raster.open_geo(file):
        pass


@pytest.mark.parametrize("make", [os.mkfifo, lambda file: os.symlink("/dev/zero", file)])
def test_an_image_that_is_no_file_is_not_waited_for(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "a.png")
    with pytest.raises(DataError, match="not a regular file"):
        check_image(tmp_path / "a.png")


def test_an_archive_of_detections_that_fills_memory_is_refused(tmp_path: Path) -> None:
    line = "P0001 0.9 1 1 9 1 9 9 1 9\n"
    for name, lines in (("good", 1), ("bomb", 1_000_000)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("Task1_ship.txt", line * lines)
    assert list(read_task1(tmp_path / "good.zip")[0]) == ["P0001"]
    with pytest.raises(DataError, match=r"must unpack to at most 100 times its \d+ bytes, it would to"):
        read_task1(tmp_path / "bomb.zip")


@pytest.mark.parametrize("name", ["../../Task1_ship.txt", "/tmp/Task1_ship.txt", "a\\..\\Task1_ship.txt"])
def test_names_in_an_archive_lead_nowhere(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.writestr(name, "P0001 0.9 1 1 9 1 9 9 1 9\n")
        archive.writestr("Task1_plane.txt", "")
    _, classes = read_task1(Path("x.zip"))
    assert set(classes) <= {"plane", "ship"}
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["x.zip"]


def test_an_archive_with_a_password_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("Task1_ship.txt", "P0001 0.9 1 1 9 1 9 9 1 9\n")
    content = bytearray(file.read_bytes())
    for sign, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(sign) + place] |= 1  # the flag of an encrypted entry
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read: .*password"):
        read_task1(file)
