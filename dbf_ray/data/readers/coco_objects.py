"""Objects of COCO's format: an annotation as a quadrilateral.

Four points of a polygon in pixels (``segmentation``) are the corners as they are; of more points, or of
several polygons, it is the rectangle of smallest area around all of them; without a polygon it is the upright
``bbox`` [x, y, width, height], turned where a rotation stands beside it that is understood
(:mod:`.rotations`). ``difficult``, which COCO does not have, is read where it is there, or else ``ignore``.
"""

from __future__ import annotations

import math
import reprlib
from pathlib import Path
from typing import Any

from dbf_ray.data.readers.base import LARGEST_COORDINATE, LabelledObject, Problem
from dbf_ray.data.readers.rotations import (
    Points,
    Rotation,
    box_corners,
    contradiction,
    entries,
    not_understood,
    rotations,
    turned,
)
from dbf_ray.errors import DataError

FLATTEST = 1e-3  # pixels: points that are all as near to one line have no area

CVAT = "attributes.rotation"  # degrees, clockwise about the centre of ``bbox``
NOT_ROTATIONS = ("segmentation", "bbox", "keypoints")
BOX_MODES = ("XYXY_ABS", "XYWH_ABS", "XYXY_REL", "XYWH_REL", "XYWHA_ABS")
"""What a ``bbox`` means by detectron2's ``bbox_mode``, a place in this list."""

Annotation = dict[str, Any]


def parse_annotation(annotation: Annotation, file: Path, names: dict[Any, str]) -> LabelledObject | Problem:
    """One annotation, or what is wrong with it; ``names`` of categories by id."""
    place = f"annotation {reprlib.repr(annotation.get('id'))}"
    category = annotation.get("category_id")
    if not is_id(category) or category not in names:
        rule = f"{place}: category_id must be the id of one of categories"
        return Problem(
            "unknown_class", file, f"{rule}, got {reprlib.repr(category)}; correct it or add the category"
        )
    points = points_of(annotation)
    if isinstance(points, str):
        return Problem("syntax", file, f"{place}: {points}")
    if wrong := [
        value
        for point in points
        for value in point
        if not math.isfinite(value) or abs(value) > LARGEST_COORDINATE
    ]:
        rule = f"{place}: coordinates must be finite and within {LARGEST_COORDINATE:.0f} pixels"
        return Problem(
            "coordinate", file, f"{rule}, got {wrong[0]:g} in {reprlib.repr(points)}; correct them"
        )
    corners = points if len(points) == 4 else rectangle(points)
    if corners is None or is_flat(corners):
        shown = reprlib.repr(points)
        return Problem(
            "degenerate",
            file,
            f"{place}: a polygon must have an area, got zero for {shown}; correct or remove it",
        )
    difficult = is_true(annotation.get("difficult", annotation.get("ignore")))
    return LabelledObject(tuple(value for point in corners for value in point), names[category], difficult)


def points_of(annotation: Annotation) -> Points | str:
    """The points of an annotation in pixels, or why it has none: rule, value and next step."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        return (
            "segmentation must be polygons, got a run-length mask, which has no corners; convert it to "
            "polygons"
        )
    beside = rotations(entries(annotation, skipped=NOT_ROTATIONS), CVAT)
    if segmentation in (None, [], [[]], ""):
        return _box_points(annotation, beside)
    points = _polygon_points(segmentation)
    if isinstance(points, str):
        return points
    return next((found for one in beside if (found := contradiction(points, one)) is not None), points)


def _box_points(annotation: Annotation, beside: list[Rotation]) -> Points | str:
    """Corners of ``bbox``, turned by the rotation beside it."""
    box = annotation.get("bbox")
    mode = _box_mode(annotation.get("bbox_mode"))
    if isinstance(box, list) and _is_numbers(box) and len(box) == 5:
        if mode != "XYWHA_ABS":
            return (
                f"a bbox must have 4 numbers, got {reprlib.repr(box)}, of which nobody says what the angle's "
                "unit, direction and centre are; give its four corners in segmentation"
            )
        cx, cy, width, height, degrees = (_float(value) for value in box)
        if not math.isfinite(degrees):
            return f"the angle of a bbox must be a finite number, got {degrees}; correct it"
        corners = box_corners(cx, cy, width, height, -math.radians(degrees))
    elif not isinstance(box, list) or not _is_numbers(box) or len(box) != 4:
        return (
            f"must have polygons in segmentation, or a bbox of 4 numbers, got {reprlib.repr(box)}; add one "
            "of them"
        )
    elif mode not in (None, "XYWH_ABS"):
        return (
            f"bbox_mode must say that a bbox is x, y, width and height (1), got "
            f"{reprlib.repr(annotation['bbox_mode'])}; convert the box, or give its corners in segmentation"
        )
    else:
        x, y, width, height = (_float(value) for value in box)
        corners = (x, y, x + width, y, x + width, y + height, x, y + height)
    if width < 0 or height < 0:
        return f"width and height of a bbox must be positive, got {width:g} and {height:g}; correct them"
    if beside:
        if len(beside) > 1 or not beside[0].known or len(box) != 4:
            return not_understood(beside[0], "the four corners in segmentation")
        found = turned(corners, beside[0])
        if isinstance(found, str):
            return found
        corners = found
    return list(zip(corners[::2], corners[1::2], strict=True))


def _box_mode(value: Any) -> str | None:
    """What a ``bbox`` means; "" where it is none of detectron2's modes, None where nothing is said."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(BOX_MODES):
        return BOX_MODES[value]
    return None if value is None else next((mode for mode in BOX_MODES if mode in str(value)), "")


def rectangle(points: Points) -> Points | None:
    """Corners of the rectangle of smallest area around points, None where they have no area.

    Raises:
        DataError: shapely is not installed; all else can be read without it.
    """
    if is_flat(points):
        return None
    try:
        import shapely
    except ImportError as error:
        raise DataError(
            "the rectangle around a polygon needs shapely, which is not installed; pip install shapely"
        ) from error
    # a line is made four times as fast as a set of points
    found = shapely.minimum_rotated_rectangle(shapely.linestrings(points))
    return list(found.exterior.coords)[:4] if found.geom_type == "Polygon" else None


def is_flat(points: Points) -> bool:
    """Whether all points lie on one line, or nearly so."""
    x, y = points[0]
    far_x, far_y = max(((px - x, py - y) for px, py in points), key=lambda offset: math.hypot(*offset))
    length = math.hypot(far_x, far_y)
    return (
        length < FLATTEST
        or max(abs(far_x * (py - y) - far_y * (px - x)) for px, py in points) / length < FLATTEST
    )


def is_id(value: Any) -> bool:
    """Whether a value can be an id: a number or a text."""
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _polygon_points(segmentation: Any) -> Points | str:
    polygons = [segmentation] if _is_numbers(segmentation) else segmentation
    if not isinstance(polygons, list) or not all(
        _is_numbers(polygon) and len(polygon) % 2 == 0 for polygon in polygons
    ):
        shown = reprlib.repr(segmentation)
        return (
            f"segmentation must be lists of x1, y1, x2, y2 and so on, an even count of numbers, got {shown}; "
            "correct it"
        )
    points: Points = []
    for polygon in polygons:
        values = [_float(value) for value in polygon]
        part = list(zip(values[::2], values[1::2], strict=True))
        # a closed ring says its first point twice
        points += part[:-1] if len(part) > 1 and part[0] == part[-1] else part
    if len(points) < 3:
        return (
            f"a polygon must have at least 3 points, got {len(points)} in {reprlib.repr(segmentation)}; "
            "correct or remove it"
        )
    return points


def _is_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more digits than any float has
        return math.inf


def is_true(flag: object) -> bool:
    """Whether a flag is set; some tools write it as text."""
    return str(flag).strip().lower() not in ("none", "false", "0", "0.0", "")
