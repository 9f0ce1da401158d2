"""How images are cut into windows, and windows put into batches.

All windows of an image have one size, so that a batch is padded as each of its windows would be alone.
Batches are the same whatever was done before: how a network rounds depends on the company, and a resumed
prediction shall end in the same bytes as one that was never interrupted.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from dbf_ray.geometry.windows import Window, sliding_windows
from dbf_ray.predict.images import Picture


@dataclass(frozen=True)
class Tiling:
    """Square windows over images of any size.

    Attributes:
        window: side in pixels of the image.
        overlap: pixels that neighbours share.
        image_size: side in pixels of what the network sees of a whole window.
    """

    window: int
    overlap: int
    image_size: int

    @property
    def scale(self) -> float:
        """Pixels that the network sees for a pixel of an image: the same for all windows of all images,
        smaller ones too.
        """
        return self.image_size / self.window

    def windows(self, size: tuple[int, int]) -> list[Window]:
        """The windows of an image of ``size`` (height, width), row by row, as most files are stored."""
        return sorted(
            sliding_windows(*size, [self.window], [self.overlap]), key=lambda window: (window.y, window.x)
        )

    def resize(self, pixels: Tensor) -> Tensor:
        """Pixels uint8 [3, h, w] as the network sees them, resized as training resizes its images."""
        height, width = pixels.shape[-2:]
        size = [max(1, round(side * self.scale)) for side in (height, width)]
        if size == [height, width]:
            return pixels
        if max(size) == 1:  # which torchvision cannot make
            return pixels.float().mean((1, 2), keepdim=True).round().to(torch.uint8)
        return functional.resize(pixels, size, interpolation=InterpolationMode.BILINEAR, antialias=True)


class Piece(NamedTuple):
    """One window of an image, ``number`` (from 0) of ``total``."""

    picture: Picture
    number: int
    total: int
    window: Window

    @property
    def last(self) -> bool:
        """Whether no other window of the image follows."""
        return self.number == self.total - 1


def batches(
    pictures: Sequence[Picture],
    tiling: Tiling,
    size: int,
    begin: Mapping[str, int],
    complete: Collection[str],
) -> Iterator[list[Piece]]:
    """Batches of ``size`` windows or fewer: of one image, or of neighbouring images of equal size that have
    one window each.

    Args:
        pictures: all images, those that are complete too.
        tiling: how they are cut.
        size: of a batch.
        begin: by name, how many windows of an image are done, where some are.
        complete: names of images that are done. They come again only to keep others the company that they
            had.
    """

    def alike(picture: Picture) -> tuple[str, tuple[int, int]]:
        return ("" if max(picture.size) <= tiling.window else picture.name), picture.size

    for (cut, _), group in itertools.groupby(pictures, key=alike):
        pieces = [
            Piece(picture, number, len(windows), window)
            for picture in group
            if (windows := tiling.windows(picture.size))
            for number, window in enumerate(windows)
        ]
        for start in range(begin.get(cut, 0) if cut else 0, len(pieces), size):
            batch = pieces[start : start + size]
            if any(piece.picture.name not in complete for piece in batch):
                yield batch
