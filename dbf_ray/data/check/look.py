"""One image and its labels: decoded whole, read, and everything found that they tell by themselves."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dbf_ray.data.check.near_duplicates import SIDE, thumbnail
from dbf_ray.data.check.objects import Objects, Size, examine
from dbf_ray.data.images.rasters import open_raster
from dbf_ray.data.readers import Item, Labels, Problem, Reader
from dbf_ray.errors import DataError

STRIP_PIXELS = 1 << 24  # decoded, hashed and made grey at a time


class Task(NamedTuple):
    """One image to look at."""

    reader: Reader
    item: Item


class Pixels(NamedTuple):
    """What is kept of an image: (height, width), a digest of its pixels, its thumbnail [64, 64], and whether
    it is of one colour.
    """

    size: Size
    digest: bytes
    thumbnail: NDArray[np.uint8]
    blank: bool


@dataclass
class ImageRecord:
    """An image of the data set; ``pixels`` is None where it cannot be decoded."""

    item: Item
    pixels: Pixels | None
    objects: Objects = field(default_factory=Objects)
    problems: list[Problem] = field(default_factory=list)


def look(task: Task) -> ImageRecord:
    """Decode an image and read its labels. Whatever is wrong with them becomes a problem, never an
    exception.
    """
    item = task.item
    pixels = _decoded(item)
    labels = _labels(task)
    problems = [] if isinstance(pixels, Pixels) else [pixels]
    size = pixels.size if isinstance(pixels, Pixels) else None
    objects, found = examine(labels.objects, item, size)
    for problem in labels.problems:
        if problem.file != item.image:
            problems.append(problem)
        elif size is not None:  # else that is told already
            problems.append(dataclasses.replace(problem, kind="broken_image"))
    if isinstance(pixels, Pixels) and pixels.blank:
        message = (
            "images should show something, all pixels are of one colour; replace the file or remove it with "
            "its labels"
        )
        problems.append(Problem("blank_image", item.image, message))
    return ImageRecord(item, pixels if isinstance(pixels, Pixels) else None, objects, problems + found)


def lost(item: Item) -> ImageRecord:
    """The record of an image that ended the process which looked at it."""
    message = (
        "images must be decodable, this one ended the process that read it (a crash, or no memory left); "
        "replace or remove the file"
    )
    return ImageRecord(item, None, problems=[Problem("broken_image", item.image, message)])


def _decoded(item: Item) -> Pixels | Problem:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of decoders, on standard error and without the file's name
            return read_pixels(item)
    except DataError as error:
        return Problem("broken_image", item.image, str(error).removeprefix(f"{item.image}: "))
    except MemoryError:
        return Problem(
            "broken_image",
            item.image,
            "images must fit into memory, this one does not; split it elsewhere or use fewer workers",
        )
    except Exception as error:  # decoders raise what they like on broken files
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Problem(
            "broken_image",
            item.image,
            f"images must be decodable, got {reason}; replace the file or remove it with its labels",
        )


def _labels(task: Task) -> Labels:
    try:
        return task.reader.read(task.item)
    except (
        Exception
    ) as error:  # readers say what is wrong; what they did not foresee must not end the walk either
        reason = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
        file = task.item.labels or task.item.image
        message = (
            f"labels must be readable, got {' '.join(reason.removeprefix(f'{file}: ').split())}; correct the "
            "file"
        )
        return Labels(problems=[Problem("syntax", file, message)])


def read_pixels(item: Item) -> Pixels:
    """Decode all of an image, strip by strip.

    Raises:
        DataError: it cannot be decoded.
    """
    with open_raster(item.image) as raster:
        height, width = raster.size
        digest = hashlib.blake2b(f"{height} {width}".encode(), digest_size=16)
        rows, colors = [], []
        for top, count in _strips(height, width):
            strip = np.ascontiguousarray(raster.read(0, top, width, count).permute(1, 2, 0).numpy())
            digest.update(strip.data)
            picture = Image.fromarray(strip)
            colors.append(np.asarray(picture.getextrema()))
            grey = picture.convert("L")
            rows.append(
                np.asarray(grey if width < SIDE else grey.resize((SIDE, count), Image.Resampling.BOX))
            )
    least, most = np.stack(colors)[:, :, 0].min(0), np.stack(colors)[:, :, 1].max(0)
    return Pixels(
        (height, width), digest.digest(), thumbnail(np.concatenate(rows)), bool((least == most).all())
    )


def _strips(height: int, width: int) -> Iterator[tuple[int, int]]:
    count = max(1, STRIP_PIXELS // max(1, width))
    return ((top, min(count, height - top)) for top in range(0, height, count))
