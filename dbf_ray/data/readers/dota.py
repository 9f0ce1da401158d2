"""Reader of DOTA's text format: a folder images/ and a folder labelTxt/ with one text file an image.

A label file may begin with header lines (``imagesource:...``, ``gsd:...``); each further line is one object::

    x1 y1 x2 y2 x3 y3 x4 y4 class [difficult]

with the corners of a quadrilateral in pixels, separated by blanks or commas. ``difficult`` is 0 or 1, 0 where
it is missing; the splitters of the DOTA devkit and of MMRotate write 2 for an object that the patch cuts,
which counts as difficult. An empty file is an image without objects. Format:
https://captain-whu.github.io/DOTA/dataset.html.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dbf_ray.data.images.folders import holds_images
from dbf_ray.data.readers.base import (
    USUAL_SPLITS,
    Item,
    LabelledObject,
    Labels,
    Listing,
    Problem,
    aliases,
    no_split,
    parse_corners,
    quoted,
    read_text,
    sub_folders,
)
from dbf_ray.data.readers.pairs import paired
from dbf_ray.errors import DataError

HEADERS = ("imagesource:", "gsd:")
LABEL_FOLDERS = ("labelTxt", "annfiles", "labelTxt-v2.0", "labelTxt-v1.5", "labelTxt-v1.0")
"""Where labels may lie, the first that is there counts: as DOTA and its devkit name the folder, as MMRotate's
splitter does, and as downloaded.
"""


class DotaReader:
    """DOTA v1.0, v1.5, v2.0, and any data in their format."""

    layout = "images/ and labelTxt/, or train/ and val/ that hold them"
    classes: Sequence[str] | None = None

    def recognises(self, root: Path) -> bool:
        """See :class:`.Reader`."""
        return _is_flat(root) or bool(self.splits(root))

    def splits(self, root: Path) -> list[str]:
        """See :class:`.Reader`."""
        if _is_flat(root):
            return splits_inside(root / "images")
        return [folder.name for folder in sub_folders(root) if os.path.isdir(folder / "images")]

    def class_names(self, root: Path) -> list[str] | None:
        """None: the format declares no classes."""
        return None

    def listing(self, root: Path, split: str) -> Listing:
        """See :class:`.Reader`; a folder without labels is a test set."""
        images, labels = split_folders(root, split)
        listing = paired(images, labels)
        if labels is None:
            listing.unlabelled = images.parent / LABEL_FOLDERS[0]
        return listing

    def read(self, item: Item) -> Labels:
        """See :class:`.Reader`."""
        return Labels() if item.labels is None else read_labels(item.labels)


def split_folders(root: Path, split: str) -> tuple[Path, Path | None]:
    """The folders of the images and labels of a split, None where there are no labels: in ROOT/SPLIT, or in
    ROOT itself where it is not divided; or images/SPLIT beside labelTxt/SPLIT.

    Raises:
        DataError: there are no such folders.
    """
    if not root.is_dir():
        raise DataError(f"the data folder must exist, {root} is not there; give an existing folder as `root`")
    if splits := splits_inside(root / "images"):
        images = next((found for name in aliases(split) if (found := root / "images" / name).is_dir()), None)
        if images is None:
            raise no_split(root, split, splits, DotaReader.layout)
        labels = label_folder(root)
        inside = None if labels is None else labels / images.name
        return images, inside if inside is not None and inside.is_dir() else labels
    folder = root if _is_flat(root) else root / split
    if not (folder / "images").is_dir():
        raise DataError(
            f"a data folder must hold images/ and labelTxt/, or {split}/ that holds them; "
            f"{folder / 'images'} is not there; give such a folder as `root`"
        )
    return folder / "images", label_folder(folder)


def splits_inside(images: Path) -> list[str]:
    """Splits that are folders within a folder of images: those with a usual name, where no image lies beside
    them.
    """
    names = [folder.name for folder in sub_folders(images) if folder.name in USUAL_SPLITS]
    return names if names and not holds_images(images) else []


def has_label_folder(root: Path) -> bool:
    """Whether a folder, or one of its sub-folders, holds labels in this format: what tells it from others
    that have images/ too.
    """
    return any(label_folder(folder) is not None for folder in (root, *sub_folders(root)))


def label_folder(folder: Path) -> Path | None:
    """The folder of a split's label files, None where there is none."""
    return next((folder / name for name in LABEL_FOLDERS if os.path.isdir(folder / name)), None)


def read_labels(file: Path) -> Labels:
    """All objects of one label file; byte-order mark, CRLF, blank lines and header lines before the first
    object are skipped.
    """
    text = read_text(file)
    if isinstance(text, Problem):
        return Labels(problems=[text])
    labels = Labels()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or (not labels.objects and line.strip().lower().startswith(HEADERS)):
            continue
        found = parse_line(line, file, number)
        if isinstance(found, Problem):
            labels.problems.append(found)
        else:
            labels.objects.append(found)
    return labels


def parse_line(text: str, file: Path, number: int) -> LabelledObject | Problem:
    """One object line, or what is wrong with it."""
    fields, shown = text.replace(",", " ").split(), quoted(text)
    if len(fields) not in (9, 10):
        rule = "an object line must be x1 y1 x2 y2 x3 y3 x4 y4 class [difficult]"
        return Problem("syntax", file, f"{rule}, got {len(fields)} fields: {shown}; correct it", number)
    corners = parse_corners(fields[:8], file, number, shown)
    if isinstance(corners, Problem):
        return corners
    flag = fields[9] if len(fields) == 10 else "0"
    if flag not in ("0", "1", "2"):
        rule = "the difficult flag must be 0 or 1, or 2 for an object that is cut"
        return Problem("syntax", file, f"{rule}, got {quoted(flag)} in: {shown}; correct the line", number)
    return LabelledObject(corners, fields[8], flag != "0", number)


def format_line(corners: tuple[float, ...], name: str, difficult: int) -> str:
    """An object as a line of a label file: coordinates with as many digits as they need, up to a thousandth
    of a pixel.
    """
    return " ".join([*(f"{value:.3f}".rstrip("0").rstrip(".") for value in corners), name, str(difficult)])


def _is_flat(root: Path) -> bool:
    return os.path.isdir(root / "images") or os.path.isdir(root / "labelTxt")
