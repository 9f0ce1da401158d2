"""From a raw sample to what the detector sees: resized, and for training one of the mirrored views.

The view of an image is drawn from (seed, epoch, index) alone, so it is the same in whatever process the image is loaded, and after a resume.
Views: identity, and mirrored left to right (horizontal), top to bottom (vertical), or both (diagonal), as the reference recipe of DBF.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from dbf_ray.data.samples import Dataset, Sample, Target, wrap_boxes
from dbf_ray.data.seeds import SAMPLING, VIEW, Stream
from dbf_ray.errors import ConfigError

IDENTITY = "identity"
FLIPS = ("horizontal", "vertical", "diagonal")


def resized_size(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    """(height, width) of an image of ``size`` after :func:`resize`."""
    scale = image_size / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(image: Tensor, target: Target, image_size: int) -> Sample:
    """Scale a sample so that the image's long side is ``image_size`` pixels; the aspect is kept and target["scale"] set.

    Boxes are multiplied by the exact factor: torchvision's own kernel would clamp those that reach past the border. The short side
    is rounded to whole pixels, half a pixel at most beside the boxes' factor.
    """
    height, width = image.shape[-2:]
    scale, size = image_size / max(height, width), resized_size((height, width), image_size)
    if size != (height, width):
        image = functional.resize(image, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)
    boxes = target["boxes"].as_subclass(Tensor) * torch.tensor([scale, scale, scale, scale, 1.0])
    return image, Target({**target, "boxes": wrap_boxes(boxes, size), "scale": scale})


def flip(image: Tensor, target: Target, view: str) -> Sample:
    """Mirror a sample: view is "identity", "horizontal", "vertical" or "diagonal" (both); boxes come back canonical.

    Raises:
        ConfigError: no such view.
    """
    check_flips([] if view == IDENTITY else [view])
    boxes = target["boxes"]
    if view in ("horizontal", "diagonal"):
        image, boxes = functional.horizontal_flip(image), functional.horizontal_flip(boxes)
    if view in ("vertical", "diagonal"):
        image, boxes = functional.vertical_flip(image), functional.vertical_flip(boxes)
    height, width = image.shape[-2:]
    return image, Target({**target, "boxes": wrap_boxes(boxes, (height, width))})


def draw_view(flips: Sequence[str], seed: int, epoch: int, index: int) -> str:
    """The view of image ``index`` in ``epoch``: the identity or one of ``flips``, all with equal chance."""
    return Stream(VIEW, seed, epoch, index).choice((IDENTITY, *flips))


def check_flips(flips: Sequence[str]) -> None:
    """Raise ConfigError where a flip is unknown."""
    for name in flips:
        if name not in FLIPS:
            raise ConfigError(f"data.flips must be among {', '.join(FLIPS)}, got {name!r}; correct or remove it")


class Resized(Protocol):
    """Gives resized samples by index."""

    def __getitem__(self, index: int) -> Sample: ...


class Resizing:
    """Loads and resizes a sample each time."""

    def __init__(self, dataset: Dataset, image_size: int) -> None:
        self.dataset, self.image_size = dataset, image_size

    def __getitem__(self, index: int) -> Sample:
        return resize(*self.dataset.load(index), self.image_size)


class TrainView:
    """Training samples of a data set, addressed by (epoch, index), or by (epoch, index, views) to see them as in another epoch."""

    def __init__(
        self, dataset: Dataset, image_size: int, flips: Sequence[str] = FLIPS, seed: int = 0, resized: Resized | None = None
    ) -> None:
        """Views of ``dataset`` with the long side resized to ``image_size`` pixels, mirrored by one of ``flips`` or not at all.

        ``resized`` is where its resized samples come from, if from elsewhere than the data set itself.
        """
        check_flips(flips)
        self.dataset, self.image_size, self.flips, self.seed = dataset, image_size, tuple(flips), seed
        self._resized = resized or Resizing(dataset, image_size)

    @property
    def views(self) -> tuple[str, ...] | None:
        """The fixed set of views that an image may be seen in; None would mean that there is no end of them."""
        return (IDENTITY, *self.flips)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, ...]) -> Sample:
        """Image uint8 [3, h, w] and target of (epoch, index)."""
        epoch, index, *views = key
        image, target = self._resized[index]
        view = draw_view(self.flips, self.seed, views[0] if views else epoch, index)
        image, target = flip(image, target, view)
        return image, Target({**target, "view": view, "seed": Stream(SAMPLING, self.seed, epoch, index).below(2**31)})


class EvalView:
    """Samples of a data set for evaluation: resized, never mirrored."""

    def __init__(self, dataset: Dataset, image_size: int, resized: Resized | None = None) -> None:
        """Views of ``dataset`` with the long side resized to ``image_size`` pixels; ``resized`` as in :class:`TrainView`."""
        self.dataset, self.image_size = dataset, image_size
        self._resized = resized or Resizing(dataset, image_size)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """Image uint8 [3, h, w] and target of ``index``."""
        return self._resized[index]
