"""Files below a folder by their names: what is passed over, and what a file is called by its path."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

from dbf_ray.data.images.files import IMAGE_SUFFIXES, OTHER_TYPES

PASSED_OVER = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found")
"""What systems leave in folders, in any case of letters, beside all that begins with a dot
(``._0001.txt``).
"""


def is_passed_over(name: str) -> bool:
    """Whether a file or folder is none of a person's own."""
    return name.startswith(".") or name.lower() in PASSED_OVER


def is_of_the_system(name: str) -> bool:
    """Whether a system leaves such a file in a folder that is empty to a person."""
    return name.startswith("._") or name.lower() in (".ds_store", *PASSED_OVER)


def files_below(folder: Path, leave_out: Path | None = None) -> Iterator[Path]:
    """Files in a folder and all below it, linked folders too, each folder once.

    Args:
        folder: where to look.
        leave_out: a folder that is not entered, resolved.

    Raises:
        OSError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = sorted(
            name
            for name in folders
            if not is_passed_over(name)
            and (real := os.path.realpath(os.path.join(place, name))) not in seen
            and Path(real) != leave_out
        )
        yield from (Path(place) / name for name in files if not is_passed_over(name))


def is_image(file: Path) -> bool:
    """Whether it is called as images are that are read."""
    return file.suffix.lower() in IMAGE_SUFFIXES


def holds_images(folder: Path) -> bool:
    """Whether images lie in the folder itself."""
    try:
        return any(
            not is_passed_over(entry.name) and is_image(Path(entry.name)) for entry in os.scandir(folder)
        )
    except OSError:
        return False


def name_below(file: Path, folder: Path) -> str:
    """What an image is called everywhere: its path below a folder, with slashes and without suffix."""
    return file.relative_to(folder).with_suffix("").as_posix()


def tails(path: str) -> list[str]:
    """A path that was written on any system, and what is left of it without its first folders: lists are made
    elsewhere.
    """
    parts = os.path.normpath(path.replace("\\", "/")).split("/")
    parts = [part for part in parts if part not in ("", ".", "..")]
    return ["/".join(parts[first:]) for first in range(len(parts))]


class FileIndex:
    """Files below a folder, by :func:`name_below`.

    Attributes:
        folder: where they are.
        files: in order of their paths; several where they differ in their suffix only.
    """

    def __init__(self, folder: Path, suffixes: Collection[str] = (*IMAGE_SUFFIXES, *OTHER_TYPES)) -> None:
        """``suffixes``: of the files, in lower case; they may be written in any."""
        self.folder = folder
        self.files: dict[str, list[Path]] = {}
        self._alike: dict[str, list[str]] = {}
        for file in sorted(files_below(folder)):
            if file.suffix.lower() in suffixes:
                self.files.setdefault(name_below(file, folder), []).append(file)
        for name in self.files:
            self._alike.setdefault(_loose(name), []).append(name)

    def alike(self, name: str) -> list[str]:
        """Names that are this one but for capitals and how accents are composed, as on systems that do not
        tell these apart.
        """
        return self._alike.get(_loose(name), [])

    def find(self, name: str) -> list[Path]:
        """Files of a name, or of the only name that is like it."""
        found = self.alike(name)
        return self.files.get(name) or (self.files[found[0]] if len(found) == 1 else [])


def _loose(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
