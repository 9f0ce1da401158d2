"""Images and their label files, which lie in two folders alike: images/siteA/0001.png and
labels/siteA/0001.txt.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from dbf_ray.data.images.files import IMAGE_SUFFIXES, not_read
from dbf_ray.data.images.folders import FileIndex, is_image
from dbf_ray.data.readers.base import Item, Listing, Problem
from dbf_ray.errors import DataError


def paired(
    images: Path, labels: Path | None, record: Any = None, others: Collection[str] = (), suffix: str = ".txt"
) -> Listing:
    """The images of a folder and of those below it, in order of their paths, each with its label file.

    Args:
        images: folder of the images.
        labels: folder of the label files, which need not be there for each; None: a test set.
        record: of each item.
        others: names of files among the labels that are none.
        suffix: of label files, which may be written in any case of letters.

    Raises:
        DataError: there is no image.
    """
    index = FileIndex(images)
    listing = Listing([])
    for files in index.files.values():
        readable = [file for file in files if is_image(file)]
        if not readable:
            listing.problems.append(Problem("unread_image", files[0], not_read(files[0])))
            continue
        listing.items.append(Item(readable[0], None, record, images))
        listing.problems += [twin(file, readable[0].name) for file in readable[1:]]
    if not listing.items:
        raise no_images(images, listing.problems)
    if labels is not None:
        _add_labels(listing, index, FileIndex(labels, (suffix,)), others, suffix)
    return listing


def twin(file: Path, other: str) -> Problem:
    """The problem of an image that is called as another."""
    message = f"images must differ in more than their suffix, {other} has the same label file; rename one"
    return Problem("duplicate_name", file, message)


def no_images(folder: Path, problems: Sequence[Problem]) -> DataError:
    """The error that a folder holds no image that is read, and which it holds."""
    rule = f"{folder} must hold images ({', '.join(IMAGE_SUFFIXES)}), found none"
    if problems:
        return DataError(f"{rule}, but {problems[0].file.name}: {problems[0].message}")
    return DataError(f"{rule}; give another folder as `root`")


def _add_labels(
    listing: Listing, images: FileIndex, labels: FileIndex, others: Collection[str], suffix: str
) -> None:
    """Give each item its label file, and say what is wrong with the others."""
    used: set[str] = set()
    for place, item in enumerate(listing.items):
        name = _label_name(item.name, images, labels)
        used.add(name)
        own = labels.files.get(name, [labels.folder / f"{item.name}{suffix}"])
        own = sorted(own, key=lambda file: file.suffix != suffix)
        for file in own[1:]:
            message = f"an image must have one label file, {own[0].name} is there too; remove one"
            listing.problems.append(Problem("duplicate_name", file, message))
        listing.items[place] = dataclasses.replace(item, labels=own[0])
    folders = {os.path.dirname(name) for name in images.files} | {""}
    # an image of a type that is not read is told by itself, with its label file
    left = {name: files[0] for name, files in labels.files.items() if name not in used | images.files.keys()}
    lonely = {os.path.basename(item.name): item for item in listing.items if not _has_labels(item)}
    for name, file in sorted(left.items(), key=lambda pair: pair[1]):
        if file.name.lower() in others:
            continue
        if (twin_of := lonely.get(os.path.basename(name))) is not None:
            message = (
                f"label files must lie in folders as their images do, {twin_of.image} has none and this one "
                f"has its name; move it to {twin_of.labels}"
            )
            listing.problems.append(Problem("misplaced_labels", file, message))
        elif os.path.dirname(name) in folders:
            message = (
                "every label file needs an image of the same name, there is none; add the image or remove "
                "the file"
            )
            listing.problems.append(Problem("orphan_labels", file, message))


def _label_name(name: str, images: FileIndex, labels: FileIndex) -> str:
    """What the label file of an image is called: as the image, or nearly so where nothing else is."""
    alike = labels.alike(name)
    if name in labels.files or len(alike) != 1 or len(images.alike(name)) != 1:
        return name
    return alike[0]


def _has_labels(item: Item) -> bool:
    return item.labels is not None and os.path.lexists(item.labels)
