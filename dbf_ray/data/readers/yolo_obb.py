"""Reader of YOLO's text format for oriented boxes: images/SPLIT and labels/SPLIT, or SPLIT/images and
SPLIT/labels, one text file an image.

Each line is one object::

    class_index x1 y1 x2 y2 x3 y3 x4 y4

with the corners of a quadrilateral, x divided by the width and y by the height of the upright image,
separated by blanks or commas. Names of the classes are in a YAML file (:mod:`.yolo_names`); without it an
object's class is its index as text. An image without a label file has no objects. The format has no
``difficult``. Format: https://docs.ultralytics.com/datasets/obb/.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dbf_ray.data.images.files import check_image
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
from dbf_ray.data.readers.dota import has_label_folder
from dbf_ray.data.readers.pairs import paired
from dbf_ray.data.readers.yolo_names import CLASSES_FILE, read_names
from dbf_ray.errors import DataError

NORMALISED = (-1.0, 2.0)
"""Objects may reach beyond the image, which is [0, 1]; what lies further out is pixels."""
FIELDS = "class_index x1 y1 x2 y2 x3 y3 x4 y4"


class YoloObbReader:
    """YOLO's oriented boxes, as Ultralytics, Roboflow and Label Studio write them."""

    layout = (
        "images/train/ and labels/train/ (or train/images/ and train/labels/), and data.yaml with the names "
        "of the classes"
    )
    classes: Sequence[str] | None = None

    def recognises(self, root: Path) -> bool:
        """See :class:`.Reader`; DOTA's folder of labels beside images/ wins."""
        if has_label_folder(root):
            return False
        return any(
            os.path.isdir(folder / "images") and os.path.isdir(folder / "labels")
            for folder in (root, *sub_folders(root))
        )

    def splits(self, root: Path) -> list[str]:
        """See :class:`.Reader`."""
        inside = [folder.name for folder in sub_folders(root / "images")]
        if holds_images(root / "images") and not set(inside) & {*USUAL_SPLITS}:
            inside = []  # folders of images beside images
        outside = [folder.name for folder in sub_folders(root) if os.path.isdir(folder / "images")]
        return sorted({*inside, *outside})

    def class_names(self, root: Path) -> list[str] | None:
        """See :class:`.Reader`."""
        names = read_names(root)
        if isinstance(names, Problem):
            raise names.error()
        return None if names is None else list(names.values())

    def listing(self, root: Path, split: str) -> Listing:
        """See :class:`.Reader`; a split whose folder of labels is missing is a test set."""
        images, labels = self._folders(root, split)
        if not os.path.isdir(labels):
            listing = paired(images, None)
            listing.unlabelled = labels
            return listing
        names = read_names(root)
        known = None if isinstance(names, Problem) else names
        listing = paired(images, labels, known, {CLASSES_FILE})
        if isinstance(names, Problem):
            listing.problems.append(names)
        if images.parent == root / "images" and holds_images(images.parent):
            message = (
                "images must lie in the folders of splits, as others do here; move what lies beside them"
            )
            listing.problems.append(Problem("left_out", images.parent, message))
        return listing

    def read(self, item: Item) -> Labels:
        """See :class:`.Reader`."""
        if item.labels is None or not os.path.lexists(item.labels):  # a broken link is no missing file
            return Labels()
        text = read_text(item.labels)
        if isinstance(text, Problem):
            return Labels(problems=[text])
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if not lines:
            return Labels()
        try:
            size = check_image(item.image, any_size=True)
        except DataError as error:
            return Labels(
                problems=[Problem("broken_image", item.image, str(error).removeprefix(f"{item.image}: "))]
            )
        labels = Labels()
        for number, line in lines:
            found = parse_line(line, item.labels, number, size, item.record)
            if isinstance(found, Problem):
                labels.problems.append(found)
            else:
                labels.objects.append(found)
        return labels

    def _folders(self, root: Path, split: str) -> tuple[Path, Path]:
        splits = self.splits(root)
        for name in aliases(split):
            if os.path.isdir(root / "images" / name):
                return root / "images" / name, root / "labels" / name
            if os.path.isdir(root / name / "images"):
                return root / name / "images", root / name / "labels"
        if splits or not os.path.isdir(root / "images"):
            raise no_split(root, split, splits, self.layout)
        return root / "images", root / "labels"


def parse_line(
    text: str, file: Path, number: int, size: tuple[int, int], names: dict[int, str] | None
) -> LabelledObject | Problem:
    """One line, or what is wrong with it.

    Args:
        text: the line.
        file: where it is.
        number: of the line, from 1.
        size: (height, width) of the upright image, pixels.
        names: of the classes by index; None: an index is its own name.
    """
    fields, shown = text.replace(",", " ").split(), quoted(text)
    if len(fields) != 9:
        return Problem(
            "syntax",
            file,
            f"a line must be {FIELDS}, got {_described(len(fields))}: {shown}; correct it",
            number,
        )
    try:
        index = int(fields[0])
    except ValueError:
        return Problem(
            "syntax",
            file,
            f"a class must be an index, a whole number, got {quoted(fields[0])} in: {shown}; correct the "
            f"line",
            number,
        )
    name = str(index) if names is None else names.get(index)
    if name is None or index < 0:
        rule = (
            "a class index must be at least 0"
            if names is None
            else f"a class index must be one of those named ({_range(names)})"
        )
        return Problem(
            "unknown_class",
            file,
            f"{rule}, got {quoted(fields[0])} in: {shown}; correct the line, or name the class",
            number,
        )
    corners = parse_corners(fields[1:], file, number, shown)
    if isinstance(corners, Problem):
        return corners
    if beyond := [
        field
        for field, value in zip(fields[1:], corners, strict=True)
        if not NORMALISED[0] <= value <= NORMALISED[1]
    ]:
        rule = (
            f"coordinates must be normalised, divided by the image's width and height ({size[1]} x "
            f"{size[0]}), 0 to 1 on the image"
        )
        return Problem(
            "coordinate", file, f"{rule}, got {quoted(beyond[0])} in: {shown}; correct the line", number
        )
    pixels = tuple(value * size[1 - place % 2] for place, value in enumerate(corners))
    return LabelledObject(pixels, name, False, number)


def _described(count: int) -> str:
    if count == 5:
        return "5 fields, as horizontal YOLO boxes have (class_index cx cy w h), which cannot be oriented"
    if count == 6:
        return (
            "6 fields, as boxes with an angle have (class_index cx cy w h angle), of which unit and "
            "direction are not known; the corners must be written"
        )
    if count > 9 and count % 2:
        return f"{count} fields, as a YOLO segmentation of {count // 2} points has"
    return f"{count} fields"


def _range(names: dict[int, str]) -> str:
    return f"{min(names)} to {max(names)}"
