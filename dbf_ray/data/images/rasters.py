"""Images of any size, read by windows.

TIFF files are read by rasterio where it is installed: only the window is decoded, and where the file says
where on earth it lies, pixels can be turned into longitudes and latitudes. Any other file is decoded once and
held as Pillow holds it, 4 bytes a pixel (20,000 x 20,000: 1.6 GB).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dbf_ray.data.images.files import (
    UNREADABLE,
    check_mode,
    is_deep,
    is_windowed,
    large_images,
    open_image,
    read_image,
    require_memory,
    undecodable,
    upright,
)
from dbf_ray.data.images.geo_raster import open_geo
from dbf_ray.errors import DataError


class Raster(Protocol):
    """An open image.

    Attributes:
        size: (height, width) in pixels, upright.
    """

    size: tuple[int, int]

    def read(self, x: int, y: int, width: int, height: int) -> Tensor:
        """The window [y, y + height) x [x, x + width), which must lie within the image, as uint8 [3, height,
        width] in RGB.

        Raises:
            DataError: the window cannot be decoded.
        """

    def lonlat(self, points: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Longitudes and latitudes (degrees, WGS 84) [n, 2] of points (x, y) in pixels [n, 2]; None where the
        image does not tell.

        x = 0 is the left edge of the first column, so that pixel centres lie at halves. It works after the
        image is closed too.
        """


@contextlib.contextmanager
def open_raster(file: Path) -> Iterator[Raster]:
    """Open an image to read windows of it.

    Raises:
        DataError: the image cannot be read.
    """
    file = Path(file)
    with contextlib.ExitStack() as stack:
        try:
            raster: Raster = stack.enter_context(open_geo(file)) if is_windowed(file) else PillowRaster(file)
        except UNREADABLE as error:
            raise undecodable(file, error) from error
        yield Checked(raster, file)


class Checked:
    """A raster of which windows beyond the image are refused, and whose errors name the file."""

    def __init__(self, raster: Raster, file: Path) -> None:
        self.size, self._raster, self._file = raster.size, raster, file
        self.lonlat = raster.lonlat

    def read(self, x: int, y: int, width: int, height: int) -> Tensor:
        """See :class:`Raster`."""
        if min(x, y) < 0 or min(width, height) < 1 or x + width > self.size[1] or y + height > self.size[0]:
            raise DataError(
                f"{self._file}: a window must lie within the image of {self.size[1]} x {self.size[0]} "
                f"pixels, got x {x}, y {y}, {width} x {height}"
            )
        try:
            return self._raster.read(x, y, width, height)
        except UNREADABLE as error:
            raise undecodable(self._file, error) from error


class PillowRaster:
    """A file that Pillow decodes whole, see :class:`Raster`."""

    def __init__(self, file: Path) -> None:
        self._deep: Tensor | None = None
        self._image: Image.Image | None = None
        with large_images():
            if is_deep(file):
                self._deep = read_image(file)
                self.size = (self._deep.shape[1], self._deep.shape[2])
                return
            with open_image(file) as image:
                check_mode(image, file)
                require_memory(image)
                self._image = upright(image)  # as it is: a copy in RGB would be held beside it
                self._image.load()
        self.size = (self._image.height, self._image.width)

    def read(self, x: int, y: int, width: int, height: int) -> Tensor:
        """See :class:`Raster`."""
        if self._deep is not None:
            return self._deep[:, y : y + height, x : x + width].clone()
        assert self._image is not None
        window = np.array(self._image.crop((x, y, x + width, y + height)).convert("RGB"))
        return torch.from_numpy(window).permute(2, 0, 1).contiguous()

    def lonlat(self, points: NDArray[np.float64]) -> None:
        """Not known."""
        return
