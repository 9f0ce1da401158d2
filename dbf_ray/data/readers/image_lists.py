"""Splits that are lists of image names, one a line, as PASCAL VOC has them in ImageSets/."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from dbf_ray.data.images.files import IMAGE_SUFFIXES, OTHER_TYPES, not_read
from dbf_ray.data.images.folders import FileIndex, is_image, is_passed_over, tails
from dbf_ray.data.readers.base import Item, Listing, Problem, find_files, quoted, read_text
from dbf_ray.data.readers.pairs import twin
from dbf_ray.errors import DataError

USUAL = ("train", "val", "trainval", "test")
PRESENCE = ("-1", "0", "1")  # second column of VOC's lists for a class: whether the image holds it


def list_names(folder: Path) -> list[str]:
    """Names of the lists in a folder, the usual ones first; VOC's lists for single classes
    (``ship_train.txt``) are left out.
    """
    try:
        names = {
            file.stem
            for file in folder.iterdir()
            if file.suffix.lower() == ".txt" and not is_passed_over(file.name)
        }
    except OSError:
        return []
    others = sorted(
        name
        for name in names
        if name not in USUAL and not name.endswith(tuple(f"_{usual}" for usual in USUAL))
    )
    return [*(name for name in USUAL if name in names), *others]


def list_file(folder: Path, split: str) -> Path | None:
    """The list of a split, None where there is none."""
    return next(iter(find_files(folder / split, (".txt",))), None)


def listed(file: Path, places: Sequence[tuple[Path, Path | None]]) -> Listing:
    """The images of a list.

    Args:
        file: the list.
        places: folders of images, each with the folder of its label files (XML), None where there are none.

    Raises:
        DataError: the list cannot be read, or names no image.
    """
    text = read_text(file, "lists of images")
    if isinstance(text, Problem):
        raise text.error()
    listing = Listing([])
    seen: dict[Path, int] = {}
    indices = [
        (FileIndex(images), None if labels is None else FileIndex(labels, (".xml",)))
        for images, labels in places
    ]
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        found = _find(line, indices)
        if found is None:
            folders = ", ".join(str(folder) for folder, _ in places)
            message = (
                f"listed images must be there, got {quoted(line)}, not in {folders}; add the image or remove "
                "the line"
            )
            listing.problems.append(Problem("missing_image", file, message, number))
        elif isinstance(found, Problem):
            listing.problems.append(found)
        elif (before := seen.setdefault(found.image, number)) != number:
            message = f"images must be listed once, {found.name} is in line {before} too; remove one"
            listing.problems.append(Problem("duplicate_name", file, message, number))
        else:
            listing.items.append(found)
    if not listing.items and not listing.problems:
        raise DataError(
            f"{file}: a list must name at least one image, got none; name the images or use another split"
        )
    return listing


def label_folder_or_none(folder: Path) -> Path | None:
    """The folder, None where it is not there."""
    return folder if os.path.isdir(folder) else None


def _find(line: str, places: Sequence[tuple[FileIndex, FileIndex | None]]) -> Item | Problem | None:
    """The image that a line names: with the suffix that it says, else with any; by all of its path, or else
    by its last parts.
    """
    names = [line.strip()]
    if len(fields := line.split()) == 2 and fields[1] in PRESENCE:
        names.append(fields[0])
    for name in itertools.chain(*map(tails, names)):
        suffix = Path(name).suffix
        stem = name[: -len(suffix)] if suffix.lower() in (*IMAGE_SUFFIXES, *OTHER_TYPES, ".xml") else name
        for images, labels in places:
            if files := images.find(stem):
                return _item([file for file in files if file.suffix == suffix] or files, images, labels)
    return None


def _item(files: Sequence[Path], images: FileIndex, labels: FileIndex | None) -> Item | Problem:
    readable = [file for file in files if is_image(file)]
    if not readable:
        return Problem("unread_image", files[0], not_read(files[0]))
    if len(readable) > 1:
        return twin(readable[1], readable[0].name)
    item = Item(readable[0], None, folder=images.folder)
    if labels is None:
        return item
    found = labels.find(item.below)
    return dataclasses.replace(item, labels=found[0] if found else labels.folder / f"{item.below}.xml")
