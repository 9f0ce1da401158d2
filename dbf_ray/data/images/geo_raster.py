"""Images that rasterio reads: GeoTIFF and other files with many bands, deep pixels or a place on earth,
window by window.

rasterio (BSD, wheels with GDAL) is optional: ``pip install 'dbf-ray[geo]'``.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dbf_ray.data.images.deep import Limits, as_rgb, limits_of, stretch
from dbf_ray.errors import DataError
from dbf_ray.machine import free_memory
from dbf_ray.values import is_text

# GDAL would keep decoded blocks in up to a twentieth of the machine's memory; this holds a row of windows of
# a wide image
_DECODED_MB = "512"
_NOWHERE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # the transform of a file that has none
_MOST_LIMITS = 64
_limits: dict[tuple[str, int], Limits] = {}  # of the files opened last
_OVERVIEW = 1024  # side in pixels of what the limits of a stretch are taken from


def rasterio() -> ModuleType | None:
    """The library, None where it is not installed."""
    os.environ.setdefault("GDAL_CACHEMAX", _DECODED_MB)
    try:
        import rasterio
    except ImportError:
        return None
    module: ModuleType = rasterio
    return module


@contextlib.contextmanager
def open_geo(file: Path) -> Iterator[GeoRaster]:
    """Open a file.

    Raises:
        DataError: rasterio is not installed.
        OSError: it cannot read the file.
    """
    library = rasterio()
    if library is None:
        raise DataError(
            f"{file}: an image of several bands with more than 8 bits each, or of more than four, needs "
            "rasterio, which is not installed; pip install 'dbf-ray[geo]', or convert the image to 8-bit RGB"
        )
    if not is_text(str(file)):
        raise DataError(
            f"{file}: an image of this kind needs rasterio, which takes no names that are not UTF-8; rename "
            "it"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=library.errors.NotGeoreferencedWarning)
        dataset = library.open(file, driver="GTiff")  # no other of GDAL's, of which some read other files
    with dataset:
        yield GeoRaster(dataset)


class GeoRaster:
    """An open file, see :class:`.rasters.Raster`; what cannot be decoded is an OSError."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.size = (dataset.height, dataset.width)
        _require_memory(dataset)
        self._bands = _color_bands(dataset)
        self._colors = _palette(dataset)
        self._crs, self._transform = dataset.crs, tuple(dataset.transform)[:6]
        self._limits = None if dataset.dtypes[0] == "uint8" else self._known_limits()

    def read(self, x: int, y: int, width: int, height: int) -> Tensor:
        """See :class:`.rasters.Raster`."""
        bands = self._read(window=((y, y + height), (x, x + width)))
        if self._colors is not None:
            bands = self._colors[bands[0]].transpose(2, 0, 1)
        return as_rgb(bands if self._limits is None else stretch(bands, self._limits))

    def lonlat(self, points: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """See :class:`.rasters.Raster`."""
        if not _is_on_earth(self._crs) or self._transform == _NOWHERE:
            return None
        a, b, c, d, e, f = self._transform
        x, y = points[:, 0], points[:, 1]
        return _on_earth(self._crs, np.stack([a * x + b * y + c, d * x + e * y + f], -1))

    def _known_limits(self) -> Limits:
        """Of the file as it is; found once in a process, since each row of its windows opens it anew."""
        changed = os.stat(self._dataset.name).st_mtime_ns if os.path.exists(self._dataset.name) else 0
        key = (self._dataset.name, changed)
        if key not in _limits:
            while len(_limits) >= _MOST_LIMITS:
                del _limits[next(iter(_limits))]
            _limits[key] = self._find_limits()
        return _limits[key]

    def _find_limits(self) -> Limits:
        """Of the whole image, from as many pixels as fit ``_OVERVIEW`` squared."""
        scale = min(1.0, _OVERVIEW / max(self.size))
        shape = (len(self._bands), *(max(1, round(side * scale)) for side in self.size))
        return limits_of(self._read(out_shape=shape), self._dataset.nodata)

    def _read(self, **how: Any) -> NDArray[Any]:
        pixels: NDArray[Any] = self._dataset.read(self._bands, **how)
        return pixels


def _require_memory(dataset: Any) -> None:
    """Refuse a file whose blocks, which are decoded whole, do not fit into memory.

    Raises:
        OSError: with how much one needs.
    """
    block = max(math.prod(shape) for shape in dataset.block_shapes)
    needed, free = block * dataset.count * np.dtype(dataset.dtypes[0]).itemsize, free_memory()
    if needed > free:
        raise OSError(f"a block of it needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


def _color_bands(dataset: Any) -> list[int]:
    """Numbers from 1 of the bands to read: those that say to be red, green and blue, else the first three,
    else the first.
    """
    names = [band.name for band in dataset.colorinterp]
    if {"red", "green", "blue"} <= set(names):
        return [names.index(color) + 1 for color in ("red", "green", "blue")]
    return [1, 2, 3] if dataset.count >= 3 else [1]


def _palette(dataset: Any) -> NDArray[np.uint8] | None:
    """Colours [256, 3] of an image of indices."""
    if dataset.count != 1 or dataset.colorinterp[0].name != "palette":
        return None
    colors = np.zeros((256, 3), np.uint8)
    for index, color in dataset.colormap(1).items():
        colors[index] = color[:3]
    return colors


def _is_on_earth(crs: Any) -> bool:
    """Whether a reference system has anything to do with longitudes and latitudes; those of engineering have
    not.
    """
    try:
        return crs is not None and (crs.is_geographic or crs.is_projected)
    except Exception:  # rasterio's own, which only an installed rasterio could name
        return False


def _on_earth(crs: Any, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitudes and latitudes [n, 2] of points [n, 2] of a reference system; infinite where it does not
    reach.

    PROJ refuses all points of a call for one that is beyond its projection, as the corners of a geostationary
    image are: these are found by halves.
    """
    from rasterio.warp import transform

    if not len(points):
        return np.zeros((0, 2))
    try:
        return np.stack(transform(crs, "EPSG:4326", *points.T), -1).reshape(-1, 2)
    except Exception:  # rasterio's own, which only an installed rasterio could name
        if len(points) == 1:
            return np.full((1, 2), np.inf)
        half = len(points) // 2
        return np.concatenate([_on_earth(crs, points[:half]), _on_earth(crs, points[half:])])
