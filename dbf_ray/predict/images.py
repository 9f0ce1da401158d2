"""Which images there are, what they are called, and how large they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dbf_ray.data.images.files import IMAGE_SUFFIXES, OTHER_TYPES, check_image, not_read
from dbf_ray.data.images.folders import files_below, is_image, name_below
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

    @property
    def shown(self) -> str:
        """Its name with its suffix."""
        return f"{self.name}{self.file.suffix}"


def find_images(source: Path, out: Path) -> tuple[dict[str, Path], str]:
    """Image files by name, sorted, and a sentence on what else is there, empty if nothing is. Images of a
    type that is not read are among them, unless one beside them is called the same and is.

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
    one = source.is_file()
    files = [source] if one else sorted(files_below(source, out.resolve()))
    named: dict[str, Path] = {}
    for file in filter(is_image, files):
        name = name_below(file, source.parent if one else source)
        other = named.setdefault(name, file)
        if other is not file:
            raise DataError(
                f"{file}: images must differ in more than their suffix, {other.name} is called the same; "
                "rename or move one"
            )
    unread = [file for file in files if file.suffix.lower() in OTHER_TYPES]
    if not named:
        found = f"{unread[0]}: {not_read(unread[0])}, or" if unread else "none;"
        raise DataError(
            f"{source} must be or hold images ({', '.join(IMAGE_SUFFIXES)}), found {found} give another as "
            "--images"
        )
    for file in unread:
        named.setdefault(name_below(file, source), file)
    taken = set(named.values())
    others = Counter(file.suffix.lower() or "no suffix" for file in files if file not in taken)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
    return dict(
        sorted(named.items())
    ), f"{others.total()} other files are passed over: {kinds}" if others else ""


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
    if not is_image(file):
        raise DataError(f"{file}: {not_read(file)}")
    return Picture(file, name, check_image(file, any_size=True), stamp_of(file))
