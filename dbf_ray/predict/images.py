"""Which images there are, what they are called, and how large they are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dbf_ray.data.images.files import IMAGE_SUFFIXES, check_image
from dbf_ray.errors import DataError


@dataclass(frozen=True)
class Picture:
    """One image to look at.

    Attributes:
        file: the image.
        name: its path within the folder of the images, with slashes and without suffix: what all its outputs
            are called.
        size: (height, width) in pixels, upright.
        stamp: the file's length in bytes and its time of change in nanoseconds, by which another file is
            told.
    """

    file: Path
    name: str
    size: tuple[int, int]
    stamp: tuple[int, int]


def find_images(source: Path, out: Path) -> tuple[dict[str, Path], str]:
    """Image files by name, sorted, and a sentence on what else is there, empty if nothing is.

    Args:
        source: an image, or a folder with images in it and in its sub-folders. What is hidden, by a dot
            before its name, is passed over.
        out: where results go: what lies there is no input.

    Raises:
        DataError: there is no such place, it holds no image, or two images would have the same outputs.
    """
    if not source.exists():
        raise DataError(
            f"images must be there, {source} is not; give an image or a folder of images as --images"
        )
    files = [source] if source.is_file() else sorted(_files_below(source, out.resolve()))
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DataError(
            f"{source} must be or hold images ({', '.join(IMAGE_SUFFIXES)}), found none; give another as "
            "--images"
        )
    named: dict[str, Path] = {}
    for file in images:
        name = file.stem if source.is_file() else file.relative_to(source).with_suffix("").as_posix()
        other = named.setdefault(name, file)
        if other is not file:
            raise DataError(
                f"{file}: images must differ in more than their suffix, {other.name} is called the same; "
                "rename or move one"
            )
    others = Counter(
        file.suffix.lower() or "no suffix" for file in files if file.suffix.lower() not in IMAGE_SUFFIXES
    )
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
    return dict(
        sorted(named.items())
    ), f"{others.total()} other files are passed over: {kinds}" if others else ""


def _files_below(folder: Path, out: Path) -> Iterator[Path]:
    """Files in a folder and all below it, linked folders too, each folder once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and (real := os.path.realpath(os.path.join(place, name))) not in seen
            and Path(real) != out
        )
        yield from (Path(place) / name for name in files if not name.startswith("."))


def stamp_of(file: Path) -> tuple[int, int]:
    """A file's length and its time of change.

    Raises:
        DataError: it is not there any more, or may not be looked at.
    """
    try:
        found = file.stat()
    except OSError as error:
        raise DataError(
            f"{file}: images must be readable, got: {error.strerror or error}; check the file"
        ) from error
    return found.st_size, found.st_mtime_ns


def measure(file: Path, name: str) -> Picture:
    """Read an image's header.

    Raises:
        DataError: the image cannot be read.
    """
    return Picture(file, name, check_image(file, any_size=True), stamp_of(file))
