from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dbf_ray.data.images.files import check_image, read_image
from dbf_ray.data.images.rasters import open_raster
from dbf_ray.errors import DataError


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (7, 5), (255, 255, 255)).convert(mode).save(file)
    check_image(file)
    image = read_image(file)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 5, 7)
    assert bool((image == 255).all())


def test_grey_is_repeated_and_transparency_dropped(tmp_path: Path) -> None:
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert (read_image(tmp_path / "grey.png").numpy() == grey).all()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    assert (read_image(tmp_path / "rgba.png").numpy() == pixels[..., :3].transpose(2, 0, 1)).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("depth", [8, 16])
def test_images_are_turned_upright(tmp_path: Path, suffix: str, orientation: int, depth: int) -> None:
    """By EXIF, 1 to 8: where row 0 and column 0 of the stored image are when it is upright (EXIF 2.3, table
    of orientations).
    """
    if suffix == "jpg" and depth == 16:
        pytest.skip("JPEG has 8 bits")
    grey = np.arange(64 * 96).reshape(64, 96) // 24
    exif, file = Image.Exif(), tmp_path / f"a.{suffix}"
    exif[0x0112] = orientation
    Image.fromarray(grey.astype(np.uint8) if depth == 8 else (grey * 40 + 300).astype(np.uint16)).save(
        file, exif=exif
    )
    turns = [lambda a: a, np.fliplr, lambda a: np.rot90(a, 2), np.flipud, np.transpose]
    turns += [lambda a: np.rot90(a, -1), lambda a: np.rot90(a, 2).T, lambda a: np.rot90(a, 1)]
    wanted = turns[orientation - 1](grey).astype(float)
    image = read_image(file)[0].numpy().astype(float)
    with open_raster(file) as raster:
        assert check_image(file) == image.shape == wanted.shape == raster.size
        assert (raster.read(0, 0, raster.size[1], raster.size[0])[0].numpy() == image).all()
    assert np.corrcoef(image.ravel(), wanted.ravel())[0, 1] > 0.99


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lab.tif"
    Image.new("LAB", (4, 4)).save(file)
    for function in (check_image, read_image):
        with pytest.raises(
            DataError, match=r"lab\.tif: images must be grey, RGB or have bands of numbers, got PIL mode LAB"
        ):
            function(file)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(content)
    for function in (check_image, read_image):
        with pytest.raises(DataError, match=r"a\.png: images must be decodable") as caught:
            function(file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_files_are_found_and_trailing_bytes_allowed(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="images must be decodable"):
        check_image(file)
    file.write_bytes(whole + b"trailing")
    check_image(file)


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "huge.png"
    Image.new("RGB", (64, 64)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"huge\.png: the image is too large .*split it into patches"):
        check_image(file)


def test_a_check_does_not_decode_what_looks_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    content = bytearray(file.read_bytes())
    content[60] ^= 0xFF  # within the pixels
    file.write_bytes(content)
    assert check_image(file) == (64, 64)
    with pytest.raises(DataError, match="images must be decodable"):
        read_image(file)
