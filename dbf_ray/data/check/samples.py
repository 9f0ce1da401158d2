"""Which images to draw so that a person sees whether labels fit: every class, spread over the data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dbf_ray.data.check.look import ImageRecord
from dbf_ray.data.images.rasters import open_raster

WINDOW = 1024  # pixels: of larger images a part is shown, in which objects can still be seen


class Sample(NamedTuple):
    """A part of an image to draw: (left, top, width, height) in pixels."""

    record: ImageRecord
    window: tuple[int, int, int, int]

    @property
    def is_part(self) -> bool:
        """Whether there is more of the image."""
        assert self.record.pixels is not None
        return self.window[2:] != self.record.pixels.size[::-1]

    def corners(self) -> NDArray[np.float64]:
        """Corners [n, 8] of all objects of the image, in pixels of the window."""
        return self.record.objects.corners - np.tile(self.window[:2], 4)

    def read(self) -> NDArray[np.uint8]:
        """The window uint8 [height, width, 3].

        Raises:
            DataError: the image cannot be decoded.
        """
        with open_raster(self.record.item.image) as raster:
            return np.ascontiguousarray(raster.read(*self.window).permute(1, 2, 0).numpy())


def choose_samples(records: Sequence[ImageRecord], count: int) -> list[Sample]:
    """At most ``count`` samples in the order of the images: for each class, the rarest first, one that shows
    it; then evenly spread ones.
    """
    usable = [record for record in records if record.pixels is not None and len(record.objects)]
    places: dict[str, list[int]] = {}
    for index, record in enumerate(usable):
        for name in set(record.objects.names):
            places.setdefault(name, []).append(index)
    chosen: dict[int, int] = {}  # image -> object to be shown
    for name in sorted(places, key=lambda name: (len(places[name]), name)):
        shown = {other for index in chosen for other in usable[index].objects.names}
        if len(chosen) < count and name not in shown:
            index = places[name][len(places[name]) // 2]
            chosen[index] = usable[index].objects.names.index(name)
    rest = [index for index in range(len(usable)) if index not in chosen]
    more = min(count - len(chosen), len(rest))
    for step in range(more):
        chosen[rest[(2 * step + 1) * len(rest) // (2 * more)]] = 0
    return [_sample(usable[index], chosen[index]) for index in sorted(chosen)]


def _sample(record: ImageRecord, row: int) -> Sample:
    assert record.pixels is not None
    x, y = record.objects.boxes[row, :2]
    return Sample(record, window_about(x, y, record.pixels.size))


def window_about(x: float, y: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What is shown of an image (height, width) about a point: (left, top, width, height) in pixels."""
    (left, wide), (top, high) = _span(x, size[1]), _span(y, size[0])
    return left, top, wide, high


def _span(center: float, length: int) -> tuple[int, int]:
    """Begin and length of what is shown of one axis."""
    shown = min(WINDOW, length)
    return int(min(max(0, center - shown / 2), length - shown)), shown
