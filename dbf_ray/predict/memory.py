"""Detections of images in memory: the same windows, batches and suppression as for a folder, and no files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dbf_ray.data.images.rasters import Raster, open_raster
from dbf_ray.errors import DataError
from dbf_ray.evaluation.merge import Detections
from dbf_ray.predict.images import Picture, measure
from dbf_ray.predict.job import Task, in_image
from dbf_ray.predict.reader import Unreadable, read_ahead
from dbf_ray.predict.windows import batches

Image = str | Path | NDArray[np.uint8] | Tensor
"""A file; or pixels in RGB, uint8: an array [H, W, 3] (as Pillow gives) or a tensor [3, H, W]."""


class PixelRaster:
    """Pixels in memory, uint8 [3, H, W], see :class:`dbf_ray.data.images.rasters.Raster`."""

    def __init__(self, pixels: Tensor) -> None:
        self.size = (pixels.shape[1], pixels.shape[2])
        self._pixels = pixels

    def read(self, x: int, y: int, width: int, height: int) -> Tensor:
        """The window [y, y + height) x [x, x + width)."""
        return self._pixels[:, y : y + height, x : x + width].clone()

    def lonlat(self, points: NDArray[np.float64]) -> None:
        """Not known."""
        return


def detect_in(task: Task, images: Sequence[Image]) -> list[Detections]:
    """What is found in each image, in its pixels, best first.

    Raises:
        DataError: an image cannot be read, or its pixels are of another shape or type.
        ResourceError: a batch does not fit into the device's memory.
    """
    pixels: dict[Path, Tensor] = {}
    pictures = []
    for number, image in enumerate(images):
        name = f"{number:09d}"
        if isinstance(image, str | Path):
            pictures.append(measure(Path(image), name))
            continue
        file = Path(f"image {number}")
        pixels[file] = _checked(image, number)
        pictures.append(Picture(file, name, PixelRaster(pixels[file]).size, (0, 0)))

    @contextlib.contextmanager
    def opened(file: Path) -> Iterator[Raster]:
        if file in pixels:
            yield PixelRaster(pixels[file])
            return
        with open_raster(file) as raster:
            yield raster

    parts: dict[str, list[Detections]] = {picture.name: [] for picture in pictures}
    planned = batches(pictures, task.tiling, task.batch, {}, ())
    with contextlib.closing(read_ahead(planned, task.tiling, None, opened)) as reading:
        for batch in reading:
            seen = []
            for one in batch:
                if isinstance(one, Unreadable):
                    raise DataError(one.reason)
                seen.append(one)
            for one, detection in zip(seen, task.run(seen), strict=True):
                found = in_image(detection, one.piece, task.tiling.scale, task.score)
                parts[one.piece.picture.name].append(found)
    return [task.merge(found, len(found)) for found in parts.values()]


def _checked(image: Any, number: int) -> Tensor:
    """Pixels uint8 [3, H, W].

    Raises:
        DataError: they are of another shape or type.
    """
    if not isinstance(image, np.ndarray | Tensor):
        raise DataError(f"image {number} must be a path, an array or a tensor, got {type(image).__name__}")
    is_array = isinstance(image, np.ndarray)
    shape = list(image.shape)
    if len(shape) != 3 or shape[2 if is_array else 0] != 3 or 0 in shape or str(image.dtype)[-5:] != "uint8":
        wanted = "an array uint8 [H, W, 3]" if is_array else "a tensor uint8 [3, H, W]"
        raise DataError(f"image {number} must be {wanted} in RGB, got {image.dtype} {shape}; convert it")
    if isinstance(image, Tensor):
        return image.cpu()
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)
