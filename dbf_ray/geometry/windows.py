"""Windows that cover an image of any size, and the names of patches cut by them.

The rules are those of MMRotate's splitter (tools/data/dota/split/img_split.py, after BboxToolkit): windows
are ``size - overlap`` apart, the last of a row or column is moved back to end at the border, and a window
reaches beyond an image that is smaller.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dbf_ray.errors import ConfigError

_NAME = re.compile(r"(?P<image>.+)__(?P<size>\d+(?:\.\d+)?)__(?P<x>-?\d+)___(?P<y>-?\d+)", re.DOTALL)
# a number below it in a patch's name is the DOTA devkit's: by how much the image was enlarged before it was
# cut
SMALLEST_PATCH = 32
_EQUAL_SHARES = 0.01


class Window(NamedTuple):
    """A square of ``size`` pixels whose top left pixel is (x, y)."""

    x: int
    y: int
    size: int

    def within(self, height: int, width: int) -> tuple[int, int]:
        """(width, height) of the part that lies on an image."""
        return min(self.size, width - self.x), min(self.size, height - self.y)


class Patch(NamedTuple):
    """Where a patch was cut: pixel (0, 0) of the patch is (x, y) of the image enlarged by ``rate``."""

    image: str
    x: int
    y: int
    rate: float


def sliding_windows(
    height: int, width: int, sizes: Sequence[int], overlaps: Sequence[int], image_share: float = 0.6
) -> list[Window]:
    """Windows of each size that cover an image, column by column, as MMRotate's ``get_sliding_window`` gives
    them.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        sizes: sides of the windows, pixels.
        overlaps: pixels that neighbouring windows of each size share.
        image_share: windows are left out of which no more than this share lies on the image, unless that
            leaves none; then those with the largest share stay. Windows of one size all have the same share,
            so that only several sizes are chosen among.

    Raises:
        ConfigError: sizes that are not positive, or overlaps outside [0, size).
    """
    for size, overlap in zip(sizes, overlaps, strict=True):
        if size < 1 or not 0 <= overlap < size:
            raise ConfigError(
                f"windows must have a size >= 1 and an overlap in [0, size), got size {size} and overlap "
                f"{overlap}; change one"
            )
    windows = [
        Window(x, y, size)
        for size, overlap in zip(sizes, overlaps, strict=True)
        for x, y in itertools.product(
            _starts(width, size, size - overlap), _starts(height, size, size - overlap)
        )
    ]
    shares = [math.prod(window.within(height, width)) / window.size**2 for window in windows]
    if not any(share > image_share for share in shares):
        image_share = max(shares) - _EQUAL_SHARES
    return [window for window, share in zip(windows, shares, strict=True) if share > image_share]


def _starts(length: int, size: int, step: int) -> list[int]:
    if length <= size:
        return [0]
    starts = [step * index for index in range(math.ceil((length - size) / step) + 1)]
    return [*starts[:-1], min(starts[-1], length - size)]


def patch_name(image: str, window: Window) -> str:
    """Name of a patch: IMAGE__SIZE__X___Y, as MMRotate names it."""
    return f"{image}__{window.size}__{window.x}___{window.y}"


def parse_patch_name(name: str) -> Patch:
    """Where the patch called ``name`` was cut; any other name is an image that was not cut."""
    found = _NAME.fullmatch(name)
    if found is None:
        return Patch(name, 0, 0, 1.0)
    number = float(found["size"])
    return Patch(
        found["image"], int(found["x"]), int(found["y"]), number if 0 < number < SMALLEST_PATCH else 1.0
    )


def told_by_folders(names: Iterable[str]) -> tuple[str, str] | None:
    """Two of the names, paths of images or patches, that are of one image but for their folders; None where
    there are none.
    """
    seen: dict[str, str] = {}
    for name in names:
        folder, _, last = name.rpartition("/")
        other = seen.setdefault(parse_patch_name(last).image, name)
        if other.rpartition("/")[0] != folder:
            return other, name
    return None
