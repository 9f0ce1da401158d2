from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dbf_ray.data.images.files import check_image, read_image
from dbf_ray.data.images.rasters import open_raster
from dbf_ray.errors import DataError

WINDOWS = [(0, 0, 90, 70), (0, 0, 1, 1), (89, 69, 1, 1), (13, 17, 40, 30), (50, 0, 40, 70)]
pytestmark = pytest.mark.filterwarnings("ignore:.*not georeferenced", "ignore:.*has no geotransform")


def pixels(bands: int = 3, dtype: type = np.uint8) -> NDArray[np.generic]:
    return np.random.default_rng(bands).integers(0, 250, (70, 90, bands)).astype(dtype)


def write(file: Path, array: NDArray[np.generic], **more: object) -> None:
    if file.suffix != ".tif":
        Image.fromarray(array).save(file)
        return
    rasterio = pytest.importorskip("rasterio", reason="writes GeoTIFF")
    height, width, count = array.shape
    with rasterio.open(
        file, "w", driver="GTiff", height=height, width=width, count=count, dtype=array.dtype, **more
    ) as out:
        out.write(array.transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "tiled.tif"])
def test_windows_are_parts_of_the_whole(tmp_path: Path, name: str) -> None:
    array, file = pixels(), tmp_path / name
    write(
        file,
        array,
        **(
            {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
            if "tiled" in name
            else {}
        ),
    )
    with open_raster(file) as raster:
        assert raster.size == (70, 90)
        for x, y, width, height in WINDOWS:
            assert (
                raster.read(x, y, width, height).numpy()
                == array[y : y + height, x : x + width].transpose(2, 0, 1)
            ).all()


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
def test_bands_beyond_the_third_are_dropped_and_grey_is_repeated(tmp_path: Path, bands: int) -> None:
    array = pixels(bands)
    write(tmp_path / "a.tif", array)
    with open_raster(tmp_path / "a.tif") as raster:
        found = raster.read(0, 0, 90, 70).numpy().transpose(1, 2, 0)
    assert (found == (array[..., :3] if bands >= 3 else array[..., :1])).all()


def test_named_colours_are_found_in_any_order(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="writes GeoTIFF")
    array, file = pixels(4), tmp_path / "a.tif"
    write(file, array)
    colors = rasterio.enums.ColorInterp
    with rasterio.open(file, "r+") as out:
        out.colorinterp = [colors.undefined, colors.blue, colors.green, colors.red]
    with open_raster(file) as raster:
        assert (raster.read(0, 0, 90, 70).numpy().transpose(1, 2, 0) == array[..., [3, 2, 1]]).all()


def test_palettes_are_applied(tmp_path: Path) -> None:
    picture = Image.fromarray(pixels()).quantize(17)
    picture.save(tmp_path / "a.tif")
    with open_raster(tmp_path / "a.tif") as raster:
        assert (
            raster.read(5, 6, 20, 10).numpy()
            == np.asarray(picture.convert("RGB"))[6:16, 5:25].transpose(2, 0, 1)
        ).all()


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_deep_images_are_stretched_alike_in_all_windows(tmp_path: Path, suffix: str) -> None:
    array, file = pixels(1, np.uint16) * 37, tmp_path / f"deep.{suffix}"
    write(file, array if suffix == "tif" else array[..., 0])
    whole = read_image(file)
    with open_raster(file) as raster:
        for x, y, width, height in WINDOWS:
            assert (raster.read(x, y, width, height) == whole[:, y : y + height, x : x + width]).all()


def test_turned_images_are_read_upright(tmp_path: Path) -> None:
    array, exif = pixels(), Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.tif"):
        Image.fromarray(array).save(tmp_path / name, exif=exif)
        with open_raster(tmp_path / name) as raster:
            assert raster.size == (90, 70)
            assert (raster.read(0, 0, 70, 90).numpy() == np.rot90(array, -1).transpose(2, 0, 1)).all()


def test_where_on_earth_a_pixel_lies(tmp_path: Path) -> None:
    """UTM zone 31N: its central meridian is 3 degrees east at easting 500 km; the equator has northing 0
    (definition of the projection).
    """
    rasterio = pytest.importorskip("rasterio", reason="writes GeoTIFF")
    transform = rasterio.transform.from_origin(500_000, 1000, 10, 10)
    write(tmp_path / "utm.tif", pixels(), crs="EPSG:32631", transform=transform)
    with open_raster(tmp_path / "utm.tif") as raster:
        found = raster.lonlat(np.array([[0.0, 100.0], [0.0, 0.0], [10.0, 100.0]]))
    assert found is not None
    assert found[0] == pytest.approx([3, 0], abs=1e-9)
    # a degree of latitude at the equator is 110.574 km (WGS 84), one of longitude 111.320 km; UTM scales the
    # central meridian by .9996
    assert found[1] == pytest.approx([3, 1 / 110.574 / 0.9996], rel=1e-5)
    assert found[2] == pytest.approx([3 + 0.1 / 111.320 / 0.9996, 0], rel=1e-5)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_an_image_without_a_place_on_earth(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, pixels())
    with open_raster(tmp_path / name) as raster:
        assert raster.lonlat(np.zeros((2, 2))) is None


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 0, 91, 5), (0, 66, 5, 5), (0, 0, 0, 5)])
def test_windows_beyond_the_image_are_refused(tmp_path: Path, window: tuple[int, int, int, int]) -> None:
    for name in ("a.png", "a.tif"):
        write(tmp_path / name, pixels())
        with (
            open_raster(tmp_path / name) as raster,
            pytest.raises(DataError, match="a window must lie within the image of 90 x 70"),
        ):
            raster.read(*window)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_broken_files_are_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, pixels())
    content = (tmp_path / name).read_bytes()
    for broken in (b"", b"no image", content[: len(content) // 2]):
        (tmp_path / name).write_bytes(broken)
        with (
            pytest.raises(DataError, match=rf"{name}: images must be decodable"),
            open_raster(tmp_path / name) as raster,
        ):
            raster.read(0, 60, 90, 10)


def test_without_rasterio_tiff_files_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = pixels()
    write(tmp_path / "a.tif", array)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with open_raster(tmp_path / "a.tif") as raster:
        assert (raster.read(1, 2, 30, 20).numpy() == array[2:22, 1:31].transpose(2, 0, 1)).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_large_images_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Beyond Pillow's limit; the limit itself is left as it was, and what decodes an image at once keeps to
    it.
    """
    write(tmp_path / name, pixels())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert check_image(tmp_path / name, any_size=True) == (70, 90)
    with open_raster(tmp_path / name) as raster:
        assert raster.size == (70, 90)
        assert raster.read(80, 60, 10, 10).shape == (3, 10, 10)
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(DataError, match="too large to decode at once"):
        check_image(tmp_path / name)


def kinds() -> dict[str, tuple[NDArray[np.generic], dict[str, object]]]:
    """Pixels and rasterio's options of TIFF files of many kinds."""
    grey = np.add.outer(np.arange(70), np.arange(90)) % 200
    half = np.where(np.arange(90) < 45, 0, grey * 50 + 400)
    return {
        "uint16, half without data": (half.astype(np.uint16)[..., None], {"nodata": 0}),
        "uint16, 65535 without data": (
            np.where(half == 0, 65535, half).astype(np.uint16)[..., None],
            {"nodata": 65535},
        ),
        "float32 without data": (
            np.where(half == 0, -9999, half).astype(np.float32)[..., None],
            {"nodata": -9999},
        ),
        "white is 0": (grey.astype(np.uint8)[..., None], {"photometric": "MINISWHITE"}),
        "4 bits": ((grey // 13).astype(np.uint8)[..., None], {"nbits": 4}),
        "1 bit": ((grey > 99).astype(np.uint8)[..., None], {"nbits": 1}),
        "int16": ((grey * 30 - 900).astype(np.int16)[..., None], {}),
        "grey and alpha": (np.stack([grey, grey], -1).astype(np.uint8), {}),
        "JPEG within": (
            np.stack([grey] * 3, -1).astype(np.uint8),
            {"compress": "jpeg", "photometric": "ycbcr"},
        ),
        "ten bands": (np.stack([grey * 9] * 10, -1).astype(np.uint16), {}),
    }


@pytest.mark.parametrize("kind", kinds())
def test_a_training_and_a_prediction_see_the_same_pixels(tmp_path: Path, kind: str) -> None:
    array, options = kinds()[kind]
    write(tmp_path / "a.tif", array, **options)
    whole = read_image(tmp_path / "a.tif")
    with open_raster(tmp_path / "a.tif") as raster:
        assert (raster.read(0, 0, 90, 70) == whole).all()
    shown, stored = whole[0].numpy().astype(float), array[..., 0].astype(float)
    valid = stored != options["nodata"] if "nodata" in options else np.full(stored.shape, True)
    sign = -1 if kind == "white is 0" else 1
    assert sign * np.corrcoef(shown[valid], stored[valid])[0, 1] > 0.95
    assert np.ptp(shown[valid]) > 150  # over most of the range
