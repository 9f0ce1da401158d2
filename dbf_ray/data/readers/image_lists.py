"""Splits that are lists of image names, one a line, as PASCAL VOC has them in ImageSets/."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dbf_ray.data.images.files import IMAGE_SUFFIXES
from dbf_ray.data.readers.base import Item, Listing, Problem, find_image, quoted, read_text
from dbf_ray.errors import DataError

USUAL = ("train", "val", "trainval", "test")
PRESENCE = ("-1", "0", "1")  # second column of VOC's lists for a class: whether the image holds it


def list_names(folder: Path) -> list[str]:
    """Names of the lists in a folder, the usual ones first; VOC's lists for single classes
    (``ship_train.txt``) are left out.
    """
    try:
        names = {
            file.stem for file in folder.iterdir() if file.suffix == ".txt" and not file.name.startswith(".")
        }
    except OSError:
        return []
    others = sorted(
        name
        for name in names
        if name not in USUAL and not name.endswith(tuple(f"_{usual}" for usual in USUAL))
    )
    return [*(name for name in USUAL if name in names), *others]


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
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        found = _find(line, places)
        if found is None:
            folders = ", ".join(str(folder) for folder, _ in places)
            message = (
                f"listed images must be there, got {quoted(line)}, not in {folders}; add the image or remove "
                "the line"
            )
            listing.problems.append(Problem("missing_image", file, message, number))
        elif (before := seen.setdefault(found.image.stem, number)) != number:
            message = f"images must be listed once, {found.image.stem} is in line {before} too; remove one"
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


def _find(line: str, places: Sequence[tuple[Path, Path | None]]) -> Item | None:
    names = [line.strip()]
    if len(fields := line.split()) == 2 and fields[1] in PRESENCE:
        names.append(fields[0])
    for name in names:
        stem = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
        for images, labels in places:
            image = find_image([images], stem)
            if image is not None:
                return Item(image, None if labels is None else labels / f"{stem}.xml")
    return None
