"""What a window cuts out of an image: its pixels, padded, and its objects.

Rules as in MMRotate's splitter: an object belongs to a patch if at least 70 % of its area lies inside
(``iof_thr``), one that is cut gets the difficult flag 2, and what lies beyond the image has one colour.
Unlike there, a cut object is clipped: what is left of it is labelled, by the rectangle of least area around
it, as the DOTA devkit does; MMRotate leaves the outline reaching out of the patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dbf_ray.data.images.rasters import Raster
from dbf_ray.data.readers import LabelledObject
from dbf_ray.geometry.windows import Window

CUT = 2  # difficult flag of an object that the window cuts
PADDING = (124, 116, 104)  # the mean colour of ImageNet, RGB
_WHOLE = 1 - 1e-6  # shares from here on are rounding


class PatchObject(NamedTuple):
    """An object of a patch: corners (8 numbers) in its pixels, class name, and difficult flag: 0, 1, or 2
    where it is cut.
    """

    corners: tuple[float, ...]
    name: str
    difficult: int


def objects_in(
    objects: Sequence[LabelledObject], window: Window, share: float = 0.7, clip: bool = True
) -> list[PatchObject]:
    """The objects of an image that belong to a window, moved to its pixels.

    Args:
        objects: of the image.
        window: of the image.
        share: least share of an object's area that must lie within the window.
        clip: label what is left of an object that is cut; False: all of it, as MMRotate does.
    """
    found = []
    for one in objects:
        inside, left = _cut(one, window)
        if inside >= share:
            whole = inside >= _WHOLE
            corners = one.corners if whole or not clip else left
            moved = tuple(value - (window.x, window.y)[index % 2] for index, value in enumerate(corners))
            found.append(PatchObject(moved, one.name, int(one.difficult) if whole else CUT))
    return found


def _cut(one: LabelledObject, window: Window) -> tuple[float, tuple[float, ...]]:
    """Share of an object's area within a window, and the corners of the smallest rectangle around that
    part.
    """
    xs, ys = one.corners[0::2], one.corners[1::2]
    right, bottom = window.x + window.size, window.y + window.size
    if window.x <= min(xs) and max(xs) <= right and window.y <= min(ys) and max(ys) <= bottom:
        return 1.0, one.corners
    if max(xs) <= window.x or min(xs) >= right or max(ys) <= window.y or min(ys) >= bottom:
        return 0.0, ()
    from shapely import MultiPoint, Polygon, box

    polygon = Polygon(zip(xs, ys, strict=True))
    if not polygon.is_valid:  # its sides cross: its hull is what boxes are made of too
        polygon = MultiPoint(list(zip(xs, ys, strict=True))).convex_hull
    part = polygon.intersection(box(window.x, window.y, right, bottom))
    if part.area <= 0:
        return 0.0, ()
    rectangle = part.minimum_rotated_rectangle
    return part.area / polygon.area, tuple(
        value for point in list(rectangle.exterior.coords)[:4] for value in point
    )


def read_patch(raster: Raster, window: Window, padding: tuple[int, int, int] | None = PADDING) -> Tensor:
    """Pixels of a window, uint8 [3, size, size]; with ``padding`` None what lies beyond the image is left
    out.
    """
    width, height = window.within(*raster.size)
    pixels = raster.read(window.x, window.y, width, height)
    if padding is None or (width, height) == (window.size, window.size):
        return pixels
    patch = (
        torch.tensor(padding, dtype=torch.uint8)[:, None, None].expand(3, window.size, window.size).clone()
    )
    patch[:, :height, :width] = pixels
    return patch
