"""What can be wrong with the objects of one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from torch import Tensor

from dbf_ray.data.labelled import SMALLEST_SIDE, boxes_of, without_area
from dbf_ray.data.readers import Item, LabelledObject, Problem
from dbf_ray.geometry import boxes_to_corners, overlapping_pairs

LEAST_INSIDE = (
    0.4  # share of an object's area; annotators stop at about half, and their boxes are a few pixels off
)
TINY = 2.0  # pixels
SAME_BOX = 0.99  # IoU from which on two boxes of a class are one object
MARGIN = 1.0  # pixels past the border that are rounding

Size = tuple[int, int]


class Objects:
    """The objects of an image that have an area, all of equal length, as arrays that are small to send
    between processes.

    Attributes:
        names: class of each.
        corners: quadrilaterals [n, 8] as labelled, pixels.
        boxes: canonical boxes [n, 5] of smallest area around them, float64.
        difficult: bool [n].
        lines: of the label file, None where the format has none.
        numbers: of each among all of the image, from 1.
        doubts: the first line of each (class, other class that may be meant), where a reader is not sure.
        past_border: which reach more than a pixel past the image's border, bool [n]; none where the image
            cannot be read.
    """

    def __init__(
        self,
        objects: Sequence[LabelledObject] = (),
        boxes: Tensor | None = None,
        numbers: Sequence[int] = (),
        size: Size | None = None,
    ) -> None:
        self.names = [one.name for one in objects]
        self.corners = np.array([one.corners for one in objects], dtype=np.float64).reshape(-1, 8)
        self.boxes: NDArray[np.float64] = np.zeros((0, 5)) if boxes is None else boxes.numpy()
        self.difficult = np.array([one.difficult for one in objects], dtype=bool)
        self.lines = [one.line for one in objects]
        self.numbers = list(numbers)
        self.doubts: dict[tuple[str, str], int | None] = {}
        for one in objects:
            if one.other is not None:
                self.doubts.setdefault((one.name, one.other), one.line)
        self.past_border = _past_border(_rectangles(self.boxes), size)

    def __len__(self) -> int:
        return len(self.names)


def examine(found: Sequence[LabelledObject], item: Item, size: Size | None) -> tuple[Objects, list[Problem]]:
    """The usable objects of an image, and what is wrong with them and the others.

    Args:
        found: all objects of the image.
        item: whose they are.
        size: (height, width) of the image; None: it cannot be read, and where objects lie is not judged.
    """
    file = label_file(item)
    boxes = boxes_of(found)
    usable = boxes[:, 3] >= SMALLEST_SIDE
    problems = [without_area(found[row], file) for row in (~usable).nonzero().flatten().tolist()]
    kept = usable.nonzero().flatten().tolist()
    objects = Objects([found[row] for row in kept], boxes[usable], [row + 1 for row in kept], size)
    for kind, row, message in (
        *_crossing(objects),
        *_tiny(objects),
        *_outside(objects, size),
        *_twice(objects),
    ):
        problems.append(Problem(kind, file, f"{place_of(objects, row, item)}{message}", objects.lines[row]))
    return objects, problems


def label_file(item: Item) -> Path:
    """Where an image's labels are, for messages."""
    return item.labels or item.image


def place_of(objects: Objects, row: int, item: Item) -> str:
    """Which object of which image is meant, where a line of the label file does not say it."""
    return "" if objects.lines[row] is not None else f"{item.shown}, object {objects.numbers[row]}: "


Detections = Iterator[tuple[str, int, str]]  # kind, row, message


def _crossing(objects: Objects) -> Detections:
    for row in np.flatnonzero(~shapely.is_valid(shapely.polygons(objects.corners.reshape(-1, 4, 2)))):
        polygon = " ".join(f"{value:g}" for value in objects.corners[row])
        message = f"corners must follow each other around the object, sides cross in {polygon}"
        yield (
            "self_crossing",
            int(row),
            f"{message}; correct their order (the smallest rectangle around them is taken)",
        )


def _tiny(objects: Objects) -> Detections:
    for row in np.flatnonzero((objects.boxes[:, 3] < TINY) & ~objects.difficult):
        sides = "{:.3g} x {:.3g}".format(*objects.boxes[row, 2:4])
        message = f"objects should be at least {TINY:g} pixels wide, got {sides} for {objects.names[row]!r}"
        yield "tiny", int(row), f"{message}; correct it, remove it or mark it difficult"


def _outside(objects: Objects, size: Size | None) -> Detections:
    """Boxes most of whose area is not on the image, of difficult ones those that are not on it at all; to
    reach past its border is usual.
    """
    if size is None:
        return
    height, width = size
    polygons = shapely.polygons(_rectangles(objects.boxes))
    on_image = shapely.area(shapely.intersection(polygons, shapely.box(0, 0, width, height))) / shapely.area(
        polygons
    )
    for row in np.flatnonzero(on_image <= np.where(objects.difficult, 0.0, LEAST_INSIDE)):
        x, y = objects.boxes[row, :2]
        rule = f"objects must lie on the image of {width} x {height} pixels"
        what = f"{1 - on_image[row]:.0%} of {objects.names[row]!r} at ({x:.6g}, {y:.6g})"
        yield (
            "outside",
            int(row),
            f"{rule}, {what} does not; correct it, remove it or, if some of it shows, mark it difficult",
        )


def _twice(objects: Objects) -> Detections:
    """Objects that an earlier one of the same class covers."""
    if len(objects) < 2:
        return
    boxes = torch.from_numpy(objects.boxes)
    rows, columns, overlaps = (values.numpy() for values in overlapping_pairs(boxes, boxes))
    names = np.unique(objects.names, return_inverse=True)[1]
    same = (rows < columns) & (overlaps >= SAME_BOX) & (names[rows] == names[columns])
    first: dict[int, tuple[int, float]] = {}
    for row, column, overlap in sorted(
        zip(rows[same].tolist(), columns[same].tolist(), overlaps[same].tolist(), strict=True)
    ):
        first.setdefault(column, (row, overlap))
    for column, (row, overlap) in sorted(first.items()):
        line = objects.lines[row]
        other = f"object {objects.numbers[row]}" if line is None else f"line {line}"
        message = (
            f"objects must be labelled once, {objects.names[column]!r} is the same box as that of {other} "
            f"(IoU {min(overlap, 1):.3f})"
        )
        yield "duplicate_object", column, f"{message}; remove one"


def _rectangles(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners [n, 4, 2] of boxes [n, 5]."""
    return boxes_to_corners(torch.from_numpy(boxes)).reshape(-1, 4, 2).numpy()


def _past_border(corners: NDArray[np.float64], size: Size | None) -> NDArray[np.bool_]:
    return np.zeros(len(corners), dtype=bool) if size is None else _beyond(corners, size)


def _beyond(points: NDArray[np.float64], size: Size) -> NDArray[np.bool_]:
    """For each group of points [n, k, 2], whether one is more than the margin past the border."""
    limits = np.array([size[1], size[0]]) + MARGIN
    return np.asarray(((points < -MARGIN) | (points > limits)).any((1, 2)))
