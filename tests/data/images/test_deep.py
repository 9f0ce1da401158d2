from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dbf_ray.data.images.deep import bits_of, limits_of, stretch
from dbf_ray.data.images.files import check_image, read_image
from dbf_ray.errors import DataError


def eleven_bits(bands: int, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(200, 1800, (bands, 40, 60)).astype(np.uint16)


def slowly(band: NDArray[np.uint16]) -> NDArray[np.int64]:
    """The cumulative count cut in plain Python: sorted values, linear between ranks."""
    ordered = sorted(band.flatten().tolist())

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        below = int(place)
        return ordered[below] + (place - below) * (ordered[min(below + 1, len(ordered) - 1)] - ordered[below])

    low, high = at(0.02), at(0.98)
    return np.array(
        [
            [min(255, max(0, round((value - low) / (high - low) * 255))) for value in row]
            for row in band.tolist()
        ]
    )


def write_tiff(file: Path, bands: NDArray[np.uint16], **more: object) -> None:
    rasterio = pytest.importorskip("rasterio", reason="rasterio writes images of several deep bands")
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with rasterio.open(file, "w", driver="GTiff", **shape, **more) as out:
        out.write(bands)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_deep_grey_image_is_stretched(tmp_path: Path, suffix: str) -> None:
    [band], file = eleven_bits(1), tmp_path / f"grey.{suffix}"
    Image.fromarray(band).save(file)
    assert check_image(file) == (40, 60)
    image = read_image(file).numpy()
    assert image.shape == (3, 40, 60)
    assert (image[0] == slowly(band)).all()
    assert (image == image[:1]).all()


@pytest.mark.filterwarnings("ignore:.*not georeferenced", "ignore:.*has no geotransform")
@pytest.mark.parametrize("bands", [3, 4, 8])
def test_several_deep_bands_are_stretched_one_by_one(tmp_path: Path, bands: int) -> None:
    values, file = eleven_bits(bands), tmp_path / "deep.tif"
    write_tiff(file, values)
    image = read_image(file).numpy()
    assert image.shape == (3, 40, 60)
    for band in range(3):
        assert (image[band] == slowly(values[band])).all()


@pytest.mark.filterwarnings("ignore:.*not georeferenced", "ignore:.*has no geotransform")
def test_pixels_without_data_do_not_count(tmp_path: Path) -> None:
    values = eleven_bits(3)
    framed = values.copy()
    framed[:, :, :30] = 0
    write_tiff(tmp_path / "framed.tif", framed, nodata=0)
    write_tiff(tmp_path / "half.tif", np.ascontiguousarray(values[:, :, 30:]))
    assert (read_image(tmp_path / "framed.tif")[:, :, 30:] == read_image(tmp_path / "half.tif")).all()


def test_not_a_number_and_flat_bands_become_black() -> None:
    bands = np.array([[[np.nan, 1.0], [2.0, 3.0]], [[5.0, 5.0], [5.0, 5.0]], [[np.nan] * 2] * 2])
    image = stretch(bands, limits_of(bands))
    assert image[0, 0, 0] == 0
    assert image[0, 1, 1] == 255
    assert not image[1:].any()


def test_depth_is_told_by_what_is_stored(tmp_path: Path) -> None:
    Image.fromarray(eleven_bits(1)[0]).save(tmp_path / "deep.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "flat.tif")
    Image.new("1", (4, 4)).save(tmp_path / "bits.tif")
    for name, bits in (("deep.png", 16), ("flat.tif", 8), ("bits.tif", 8)):
        with Image.open(tmp_path / name) as image:
            assert bits_of(image) == bits, name


@pytest.mark.filterwarnings("ignore:.*not georeferenced", "ignore:.*has no geotransform")
def test_without_rasterio_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiff(tmp_path / "deep.tif", eleven_bits(3), photometric="RGB")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(DataError, match=r"deep\.tif: .*needs rasterio.*pip install 'dbf-ray\[geo\]'"):
        read_image(tmp_path / "deep.tif")
