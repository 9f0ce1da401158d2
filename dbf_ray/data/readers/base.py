"""What a reader of a labelling format is, and what it gives.

A reader never raises for what is wrong with a single image or label: it says so in a :class:`Problem` and
goes on. A data set to train on refuses the first problem; a check reports them all.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dbf_ray.data.class_lists import class_names
from dbf_ray.data.images.files import IMAGE_SUFFIXES
from dbf_ray.data.images.folders import is_passed_over, name_below
from dbf_ray.errors import DataError

LARGEST_COORDINATE = 1e6  # pixels
# kinds of problems that a data set to train on only warns of
TOLERATED = frozenset({"orphan_labels", "left_out"})
USUAL_SPLITS = ("train", "val", "valid", "validation", "test", "trainval")


@dataclass(frozen=True)
class LabelledObject:
    """One object as written.

    Attributes:
        corners: (x1, y1, ..., x4, y4) of a quadrilateral, pixels.
        name: class name.
        difficult: evaluation ignores it.
        line: of the label file, from 1; None where the format has no lines.
        other: the class that is meant if what was read as a flag belongs to the name; None: no doubt.
    """

    corners: tuple[float, ...]
    name: str
    difficult: bool = False
    line: int | None = None
    other: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Problem:
    """Something wrong with the data: a ``kind`` for programs, a ``message`` (rule, value, next step) for
    people, and where it is.
    """

    kind: str
    file: Path
    message: str
    line: int | None = None

    @property
    def place(self) -> str:
        """File and, where there is one, line."""
        return str(self.file) if self.line is None else f"{self.file}, line {self.line}"

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"

    def error(self) -> DataError:
        """The problem as an error."""
        return DataError(str(self))


@dataclass(frozen=True)
class Item:
    """One image of a split.

    Attributes:
        image: its file.
        labels: its label file, which may be missing; None: the split has no labels, as a test set.
        record: what the listing knows already and reading needs: the objects, in formats that hold all of
            them in one file; class names.
        folder: of all images of the split, in or below which it lies; None: the one that it lies in.
        split: put before its name, where splits that are taken together have images of one name.
    """

    image: Path
    labels: Path | None
    record: Any = None
    folder: Path | None = None
    split: str = ""

    @property
    def below(self) -> str:
        """Its path below the folder of images, with slashes and without suffix."""
        return name_below(self.image, self.folder or self.image.parent)

    @property
    def name(self) -> str:
        """What it is called everywhere: unlike any other of the data set."""
        return f"{self.split}/{self.below}" if self.split else self.below

    @property
    def shown(self) -> str:
        """Its name with its suffix, for messages."""
        return f"{self.name}{self.image.suffix}"


@dataclass
class Listing:
    """The images of a split in a fixed order, and what is wrong with the list itself.

    ``unlabelled``: where the labels should be, for a split that has none at all.
    """

    items: list[Item]
    problems: list[Problem] = field(default_factory=list)
    unlabelled: Path | None = None


@dataclass
class Labels:
    """The objects of one image, and what is wrong with its labels; an object with a problem of its own is
    left out.
    """

    objects: list[LabelledObject] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class Reader(Protocol):
    """Reads one labelling format.

    Attributes:
        layout: what a data folder of this format must look like, for messages and help.
        classes: class names of the format, in label order; None: it has none of its own.
    """

    layout: str
    classes: Sequence[str] | None

    def recognises(self, root: Path) -> bool:
        """Whether ``root`` looks like this format, by names of folders and lists; the table's first reader
        that says so is taken.
        """

    def splits(self, root: Path) -> list[str]:
        """Names of the splits that ``root`` holds; empty where it is not divided, and any name means all of
        it.
        """

    def class_names(self, root: Path) -> list[str] | None:
        """Class names, in label order, that the folder itself declares; None where it declares none.

        Raises:
            DataError: what declares them cannot be read.
        """

    def listing(self, root: Path, split: str) -> Listing:
        """The images of a split.

        Raises:
            DataError: the folder cannot be this format: something that all images need is not there.
        """

    def read(self, item: Item) -> Labels:
        """The objects of one item; empty where it has no labels."""


def knowing(reader: Reader, classes: str | Sequence[str]) -> Reader:
    """The reader as one that knows the names of all classes, as they were given, where that tells it how to
    read a line: one that has ``knowing``.
    """
    if not hasattr(reader, "knowing"):
        return reader
    informed: Reader = reader.knowing(class_names(classes) if isinstance(classes, str) else classes)
    return informed


def parse_corners(
    fields: Sequence[str], file: Path, line: int | None, shown: str
) -> tuple[float, ...] | Problem:
    """Coordinates in pixels, or what is wrong with them; ``shown`` is what to quote."""
    values = []
    for text in fields:
        try:
            value = float(text.replace("_", "?"))  # 1_5 is a number in Python alone
        except ValueError:
            return Problem(
                "syntax",
                file,
                f"coordinates must be numbers, got {quoted(text)} in: {shown}; correct the line",
                line,
            )
        if not math.isfinite(value) or abs(value) > LARGEST_COORDINATE:
            rule = f"coordinates must be finite and within {LARGEST_COORDINATE:.0f} pixels"
            return Problem(
                "coordinate", file, f"{rule}, got {quoted(text)} in: {shown}; correct the line", line
            )
        values.append(value)
    return tuple(values)


def read_text(file: Path, what: str = "label files") -> str | Problem:
    """A label file's text without byte-order mark, or why there is none; ``what`` such files are, for
    messages.
    """
    try:
        require_regular(file)
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        message = (
            "every image needs a label file, this one is missing; add it (empty if there are no objects)"
        )
        return Problem("missing_labels", file, message)
    except UnicodeDecodeError as error:
        return Problem(
            "syntax", file, f"{what} must be UTF-8 text, byte {error.start} is not; save the file as UTF-8"
        )
    except OSError as error:
        return Problem(
            "syntax",
            file,
            f"{what} must be readable, got: {error.strerror or error}; check the file and its permissions",
        )


def require_regular(file: Path) -> None:
    """Refuse a pipe, which would be waited for without end, and a device, which may not end.

    Raises:
        OSError: it is one, or cannot be looked at.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError("it is not a regular file")


def find_image(folders: Sequence[Path], stem: str) -> Path | None:
    """The image file named ``stem``, which may have folders before it, in the first of the folders that has
    one.
    """
    for folder in folders:
        if found := find_files(folder / stem, IMAGE_SUFFIXES):
            return found[0]
    return None


def find_files(stem: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files called ``stem`` and one of the suffixes, in any case of letters: in the order of the suffixes,
    those that are spelled so first.
    """
    exact = [Path(f"{stem}{suffix}") for suffix in suffixes]
    try:
        names = [entry.name for entry in os.scandir(stem.parent) if entry.is_file()]
    except OSError:
        return []
    found = [
        stem.with_name(name)
        for name in sorted(names)
        if name.startswith(stem.name) and name[len(stem.name) :].lower() in suffixes
    ]
    return sorted(
        found, key=lambda file: (suffixes.index(file.name[len(stem.name) :].lower()), file not in exact)
    )


def sub_folders(folder: Path) -> list[Path]:
    """Its sub-folders in order of their names, without hidden ones; none where it is no folder or cannot be
    read.
    """
    try:
        return sorted(
            Path(entry) for entry in os.scandir(folder) if entry.is_dir() and not is_passed_over(entry.name)
        )
    except OSError:
        return []


def aliases(split: str) -> tuple[str, ...]:
    """Names under which the folders of a split may go: "val" is "valid" in Roboflow's exports."""
    return (split, "valid") if split == "val" else (split,)


def no_split(root: Path, split: str, splits: Sequence[str], layout: str) -> DataError:
    """The error that a data folder lacks a split, and which it has."""
    if not root.is_dir():
        return DataError(
            f"the data folder must exist, {root} is not there; give an existing folder as `root`"
        )
    if not splits:
        return DataError(f"a data folder must hold {layout}; {root} does not; give such a folder as `root`")
    return DataError(
        f"{root}: the split must be one of those that are there ({', '.join(splits)}), got {split!r}; name "
        "one of them"
    )


def same_names(items: Iterable[Item]) -> list[Problem]:
    """A problem for each image that is called as an earlier one."""
    seen: dict[str, Item] = {}
    problems = []
    for item in items:
        if (other := seen.setdefault(item.name, item)) is not item:
            message = (
                "images must differ in their path below the folder of images, without suffix: "
                f"{other.image} is called {item.name} too; rename one"
            )
            problems.append(Problem("duplicate_name", item.image, message))
    return problems


def unions(listings: Mapping[str, Listing]) -> list[str]:
    """Splits that others make up, as "trainval" is of "train" and "val": names that hold another's, and no
    image beside those of the others.
    """
    files = {name: {item.image for item in listing.items} for name, listing in listings.items()}
    found = []
    for name in files:
        parts = [files[other] for other in files if other != name and other in name]
        if len(parts) > 1 and files[name] <= set().union(*parts):
            found.append(name)
    return found


def quoted(text: str, length: int = 120) -> str:
    """Text on one line, in quotes, shortened."""
    text = " ".join(text.split())
    return repr(text if len(text) <= length else text[: length - 3] + "...")
