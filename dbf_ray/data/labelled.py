"""A split of images and label files as a data set to train on and to evaluate on, whatever the format: all
labels read and checked.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dbf_ray.data.class_lists import class_names
from dbf_ray.data.contents import Flags
from dbf_ray.data.digest import label_digest
from dbf_ray.data.images.files import check_image, read_image
from dbf_ray.data.readers import Item, LabelledObject, Labels, Problem, Reader
from dbf_ray.data.readers.base import TOLERATED, knowing, same_names
from dbf_ray.data.readers.dota import doubtful
from dbf_ray.data.samples import Sample, Target, make_target
from dbf_ray.errors import DataError
from dbf_ray.geometry import canonicalize, corners_to_boxes

SMALLEST_SIDE = 1e-3  # pixels: a quadrilateral whose smallest rectangle is thinner has no area

_log = logging.getLogger(__name__)


class LabelledDataset:
    """Images and labels of one split, all labels and the headers of all images read and checked.

    Attributes:
        items: the images, with their label files and names, which are ``image_ids``.
        files: image files.
        sizes: (height, width) of each.
        label_digests: of what is labelled in each.
        part: folder and split; equal for two data sets of the same images.
    """

    def __init__(
        self,
        reader: Reader,
        root: Path | str,
        split: str = "train",
        classes: str | Sequence[str] | None = None,
        drop_empty: bool = False,
        classes_from: str = "train",
    ) -> None:
        """Read all label files and the headers of all images.

        Args:
            reader: of the format.
            root: folder of the data.
            split: which; several joined by "+" are taken together ("train+val").
            classes: names in label order, or the name of a public list; None: the format's own, those that
                the folder declares, or the sorted names in ``classes_from``.
            drop_empty: leave images without objects out.
            classes_from: the split that tells the classes.

        Raises:
            DataError: a folder, label file or line is not usable, an image is broken, or a class is unknown.
        """
        root = Path(root)
        self.part = (root, split if reader.splits(root) else "")
        own = reader.classes if classes is None else classes
        if own is None:
            own = reader.class_names(root)
        self.classes = class_names(own) if own is not None else found_classes(reader, root, classes_from)
        reader = knowing(reader, self.classes if own is None else own)
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.items: list[Item] = []
        self.sizes: list[tuple[int, int]] = []
        self.label_digests: list[str] = []
        self._boxes: list[Tensor] = []
        self._labels: list[list[int]] = []
        self._difficult: list[list[bool]] = []
        self._lines: list[list[int | None]] = []
        for item, labels in read_split(reader, root, split):
            place = item.labels or item.image
            self._check_names(labels.objects, place, numbers)
            boxes = to_boxes(labels.objects, place)
            size = check_image(item.image)
            if labels.objects or not drop_empty:
                self.items.append(dataclasses.replace(item, record=None))
                self.sizes.append(size)
                self.label_digests.append(label_digest(labels.objects))
                self._boxes.append(boxes)
                self._labels.append([numbers[one.name] for one in labels.objects])
                self._difficult.append([one.difficult for one in labels.objects])
                self._lines.append([one.line for one in labels.objects])
        self.files = [item.image for item in self.items]
        self.image_ids = [item.name for item in self.items]
        if not self.files:
            raise DataError(
                f"{root}, {split}: no object is labelled, so `drop_empty` leaves no image; label some, or "
                "set `drop_empty` to false and, to train on no object, `allow_empty` to true"
            )

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> Sample:
        """Image uint8 [3, H, W] in RGB, upright, and its target.

        Raises:
            DataError: the image cannot be decoded.
        """
        return read_image(self.files[index]), self.target(index)

    def target(self, index: int) -> Target:
        """The target alone, without decoding the image."""
        return make_target(
            self._boxes[index].clone(),
            self._labels[index],
            self._difficult[index],
            self.image_ids[index],
            self.sizes[index],
        )

    def flags(self, index: int) -> Flags:
        """Labels and difficult flags of an image's objects."""
        return self._labels[index], self._difficult[index]

    def place(self, index: int, number: int) -> tuple[Path, int | None]:
        """File and line that an object of an image, the ``number``-th, is labelled in; None where its format
        has no lines.
        """
        item = self.items[index]
        return item.labels or item.image, self._lines[index][number]

    def _check_names(self, objects: Sequence[LabelledObject], file: Path, numbers: dict[str, int]) -> None:
        for one in objects:
            if one.name not in numbers:
                rule = f"classes must be among those of train or `classes` ({', '.join(self.classes)})"
                raise unknown_class(one, file, rule).error()


def unknown_class(one: LabelledObject, file: Path, rule: str) -> Problem:
    """The problem of an object whose class is not among those that ``rule`` names."""
    return Problem(
        "unknown_class",
        file,
        f"{rule}, got {one.name!r}; correct the line or name the class in `classes`",
        one.line,
    )


def read_split(reader: Reader, root: Path, split: str, warn: bool = True) -> list[tuple[Item, Labels]]:
    """All images of a split, or of several joined by "+", with their objects.

    Args:
        reader: of the format.
        root: folder of the data.
        split: which.
        warn: say what is left out.

    Raises:
        DataError: the first problem there is, labels that are missing altogether among them.
    """
    parts = [(part, _listed(reader, root, part, warn)) for part in split.split("+")]
    items = [item for _, listed in parts for item in listed]
    if same_names(items):  # splits that count their images alike, each from 1
        _check_apart(parts)
        items = [dataclasses.replace(item, split=part) for part, listed in parts for item in listed]
    pairs: list[tuple[Item, Labels]] = []
    for item in items:
        labels = reader.read(item)
        if labels.problems:
            raise labels.problems[0].error()
        pairs.append((item, labels))
    return pairs


def _check_apart(parts: Sequence[tuple[str, Sequence[Item]]]) -> None:
    """Refuse splits that have an image in common.

    Raises:
        DataError: two have.
    """
    seen: dict[Path, str] = {}
    for part, items in parts:
        for item in items:
            if item.image in seen:
                raise DataError(
                    f"{item.image}: splits that are taken together must have no image in common, "
                    f"{seen[item.image]} and {part} have this one; leave one of them out"
                )
        seen |= {item.image: part for item in items}


def _listed(reader: Reader, root: Path, part: str, warn: bool) -> list[Item]:
    """The images of a split.

    Raises:
        DataError: see :func:`read_split`.
    """
    listing = reader.listing(root, part)
    for problem in (*listing.problems, *same_names(listing.items)):
        if problem.kind not in TOLERATED:
            raise problem.error()
    for kind in sorted(TOLERATED) if warn else ():
        if left_out := [problem for problem in listing.problems if problem.kind == kind]:
            _log.warning(
                "%s, %s: %d are left out (%s), the first is %s", root, part, len(left_out), kind, left_out[0]
            )
    if listing.unlabelled is not None:
        rule = f"a data folder must hold {reader.layout}"
        raise DataError(
            f"{rule}; {listing.unlabelled} is not there or holds no labels; give such a folder as `root`"
        )
    return listing.items


def found_classes(reader: Reader, root: Path, split: str = "train") -> list[str]:
    """Sorted names of the classes in the labels of a split.

    Raises:
        DataError: the split is not usable, or has no objects at all.
    """
    objects = [one for _, labels in read_split(reader, root, split, warn=False) for one in labels.objects]
    for name, other in doubtful((one.name, one.other) for one in objects).items():
        _log.warning(
            "%s, %s: %r is read as a class with a difficult flag, but may be %r, and others like it, without "
            "one; name all classes to say which",
            root,
            split,
            name,
            other,
        )
    names = {one.name for one in objects}
    if not names:
        raise DataError(
            f"{root}, {split}: must label at least one object to learn from, found none; label some, or name "
            "the classes in `classes` and, to train on no object, set `allow_empty` to true"
        )
    return sorted(names)


def boxes_of(objects: Sequence[LabelledObject]) -> Tensor:
    """Canonical boxes [n, 5] float64 of smallest area around the objects' quadrilaterals."""
    return canonicalize(
        corners_to_boxes(torch.tensor([one.corners for one in objects], dtype=torch.float64).reshape(-1, 8))
    )


def without_area(one: LabelledObject, file: Path) -> Problem:
    """The problem of an object whose quadrilateral has no area."""
    polygon = " ".join(f"{value:g}" for value in one.corners)
    return Problem(
        "degenerate",
        file,
        f"a polygon must have an area, got zero for {polygon}; correct or remove the line",
        one.line,
    )


def to_boxes(objects: Sequence[LabelledObject], file: Path) -> Tensor:
    """Canonical boxes [n, 5] float32.

    Raises:
        DataError: an object has no area.
    """
    boxes = boxes_of(objects)
    for row in (boxes[:, 3] < SMALLEST_SIDE).nonzero().flatten().tolist():
        raise without_area(objects[row], file).error()
    return canonicalize(boxes.to(torch.float32))
