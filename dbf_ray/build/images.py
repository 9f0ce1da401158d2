"""How images are shaped on their way into the detector: everything that follows from the keys of data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dbf_ray.config import DataConfig, at
from dbf_ray.data.augment import Augmentation
from dbf_ray.detectors.base import SIZE_DIVISOR


@dataclass(frozen=True)
class ImageSettings:
    """Sizes in pixels, and what is changed at random.

    Attributes:
        size: long side that images are resized to.
        square: side of the square that every image fits into after resizing and padding.
        largest: the same after augmentation; beyond ``square`` with scales above 1.
        padded: whether all images are padded to the largest square.
        flips: orientations beside the unflipped one.
        orientation_per: "epoch" or "span": when an orientation is drawn.
        augmentation: random changes, none by default.
    """

    size: int
    square: int
    largest: int
    padded: bool
    flips: tuple[str, ...]
    orientation_per: Literal["epoch", "span"]
    augmentation: Augmentation

    @property
    def least_pad_to(self) -> tuple[int, int]:
        """What a detector pads to at least: (height, width), 0 for as little as images need."""
        return (self.largest, self.largest) if self.padded else (0, 0)


@at("data.augment", "data")
def image_settings(data: DataConfig, compiled: bool) -> ImageSettings:
    """What is configured. With ``compiled`` graphs all images are padded to one square, since every shape
    would be compiled anew.

    Raises:
        ConfigError: an augmentation is out of its range, or images would become too small or too large.
    """
    augmentation = Augmentation(**dict(data.augment))
    _, longest = augmentation.long_sides(data.image_size)
    return ImageSettings(
        size=data.image_size,
        square=_padded(data.image_size),
        largest=_padded(max(longest, data.image_size)),
        padded=data.pad_to == "square" or compiled,
        flips=tuple(data.flips),
        orientation_per=data.orientation_per,
        augmentation=augmentation,
    )


def _padded(side: int) -> int:
    return math.ceil(side / SIZE_DIVISOR) * SIZE_DIVISOR
