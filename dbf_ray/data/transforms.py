"""From a raw sample to what the detector sees: resized, and for training in one of a fixed set of
orientations, then perhaps augmented at random.

What is drawn for an image depends on (seed, epoch, index) alone, so it is the same in whatever process it is
loaded, and after a resume. Views are the eight symmetries of the square: the image as it is, mirrored left to
right (horizontal), top to bottom (vertical), or both (diagonal), which is the reference recipe of DBF, and
each of these after a quarter turn. Random augmentations (:mod:`.augment`) have no end of outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import BoundingBoxes

from dbf_ray.data.samples import Dataset, Sample, Target, wrap_boxes
from dbf_ray.data.seeds import AUGMENT, ORIENTATION, SAMPLING, Stream
from dbf_ray.errors import ConfigError

IDENTITY = "identity"
FLIPS = ("horizontal", "vertical", "diagonal")
# Each orientation is a quarter turn counter-clockwise or none, then mirrored left to right or not, then top
# to bottom or not. Names as Pillow's.
ORIENTATIONS = {
    IDENTITY: (False, False, False),
    "horizontal": (False, True, False),
    "vertical": (False, False, True),
    "diagonal": (False, True, True),
    "rotate90": (True, False, False),
    "rotate270": (True, True, True),
    "transpose": (True, False, True),
    "transverse": (True, True, False),
}


def resized_size(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    """(height, width) of an image of ``size`` after :func:`resize`."""
    scale = image_size / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(image: Tensor, target: Target, image_size: int) -> Sample:
    """Scale a sample so that the image's long side is ``image_size`` pixels; the aspect is kept and
    target["scale"] set.

    Boxes are multiplied by the exact factor: torchvision's own kernel would clamp those that reach past the
    border. The short side is rounded to whole pixels, half a pixel at most beside the boxes' factor.
    """
    height, width = image.shape[-2:]
    scale, size = image_size / max(height, width), resized_size((height, width), image_size)
    if size != (height, width):
        image = functional.resize(image, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)
    boxes = target["boxes"].as_subclass(Tensor) * torch.tensor([scale, scale, scale, scale, 1.0])
    return image, Target({**target, "boxes": wrap_boxes(boxes, size), "scale": scale})


def flip(image: Tensor, target: Target, orientation: str) -> Sample:
    """Show a sample in an orientation, a key of ``ORIENTATIONS``; boxes come back canonical. With a quarter
    turn in it, height and width change places.

    Raises:
        ConfigError: no such orientation.
    """
    check_flips([] if orientation == IDENTITY else [orientation])
    turned, left_right, top_bottom = ORIENTATIONS[orientation]
    boxes = target["boxes"]
    if turned:
        image, boxes = quarter_turn(image, boxes)
    if left_right:
        image, boxes = functional.horizontal_flip(image), functional.horizontal_flip(boxes)
    if top_bottom:
        image, boxes = functional.vertical_flip(image), functional.vertical_flip(boxes)
    height, width = image.shape[-2:]
    return image, Target({**target, "boxes": wrap_boxes(boxes, (height, width))})


def quarter_turn(image: Tensor, boxes: BoundingBoxes) -> tuple[Tensor, BoundingBoxes]:
    """Turn an image [3, H, W] and its boxes [n, 5] by 90 degrees counter-clockwise: [3, W, H].

    The boxes by a closed form, which is exact: torchvision's ``rotate`` goes by float32 corners, and leaves
    an empty set of boxes on its old canvas.
    """
    height, width = image.shape[-2:]
    cx, cy, w, h, angle = boxes.as_subclass(Tensor).unbind(-1)
    turned = torch.stack([cy, width - cx, w, h, angle + 90], -1)
    return functional.rotate(image, 90, expand=True), wrap_boxes(turned, (width, height))


def orientation_size(size: tuple[int, int], orientation: str) -> tuple[int, int]:
    """(height, width) of an orientation of an image of ``size``."""
    height, width = size
    return (width, height) if ORIENTATIONS[orientation][0] else (height, width)


def draw_orientation(flips: Sequence[str], seed: int, epoch: int, index: int) -> str:
    """The orientation of image ``index`` in ``epoch``: the identity or one of ``flips``, all with equal
    chance.
    """
    return Stream(ORIENTATION, seed, epoch, index).choice((IDENTITY, *flips))


def check_flips(flips: Sequence[str]) -> None:
    """Raise ConfigError where a flip is unknown."""
    known = [orientation for orientation in ORIENTATIONS if orientation != IDENTITY]
    for name in flips:
        if name not in known:
            raise ConfigError(f"`flips` must be among {', '.join(known)}, got {name!r}; correct or remove it")


class Resized(Protocol):
    """Gives resized samples by index."""

    def __getitem__(self, index: int) -> Sample: ...


class RandomAugmentation(Protocol):
    """Changes samples at random; see :class:`.augment.Augmentation`."""

    @property
    def switched_on(self) -> Mapping[str, Any]:
        """What of it changes anything; empty: nothing does."""
        ...

    def __call__(self, image: Tensor, target: Target, stream: Stream) -> Sample:
        """A sample changed by numbers from ``stream``."""
        ...


class Resizing:
    """Loads and resizes a sample each time."""

    def __init__(self, dataset: Dataset, image_size: int) -> None:
        self.dataset, self.image_size = dataset, image_size

    def __getitem__(self, index: int) -> Sample:
        return resize(*self.dataset.load(index), self.image_size)


class TrainView:
    """Training samples of a data set, addressed by (epoch, index), or by (epoch, index, orientations) to see
    them in the orientation of another epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        image_size: int,
        flips: Sequence[str] = FLIPS,
        seed: int = 0,
        resized: Resized | None = None,
        augmentation: RandomAugmentation | None = None,
    ) -> None:
        """Samples of ``dataset``, resized, then in one of some orientations, then augmented.

        Args:
            dataset: whose samples.
            image_size: long side in pixels that they are resized to.
            flips: orientations beside the identity, all with equal chance.
            seed: of all that is drawn.
            resized: where resized samples come from, if from elsewhere than the data set itself.
            augmentation: random changes of what is seen; they are drawn for each epoch, also where an
                orientation stays for several.
        """
        check_flips(flips)
        self.dataset, self.image_size, self.flips, self.seed = dataset, image_size, tuple(flips), seed
        self.augmentation = augmentation if augmentation is not None and augmentation.switched_on else None
        self._resized = resized or Resizing(dataset, image_size)

    @property
    def orientations(self) -> tuple[str, ...] | None:
        """The fixed set of orientations that an image may be seen in; None where it is augmented, so that
        there is no end of them.
        """
        return (IDENTITY, *self.flips) if self.augmentation is None else None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, ...]) -> Sample:
        """Image uint8 [3, h, w] and target of (epoch, index)."""
        epoch, index, *orientations = key
        image, target = self._resized[index]
        orientation = draw_orientation(
            self.flips, self.seed, orientations[0] if orientations else epoch, index
        )
        image, target = flip(image, target, orientation)
        target = Target({**target, "seed": Stream(SAMPLING, self.seed, epoch, index).below(2**31)})
        if self.augmentation is None:
            return image, Target({**target, "orientation": orientation})
        # No "orientation": with image_id it would name what is seen, and features are kept under that name.
        return self.augmentation(image, target, Stream(AUGMENT, self.seed, epoch, index))


class EvalView:
    """Samples of a data set for evaluation: resized, as they are."""

    def __init__(self, dataset: Dataset, image_size: int, resized: Resized | None = None) -> None:
        """Views of ``dataset`` with the long side resized to ``image_size`` pixels; ``resized`` as in
        :class:`TrainView`.
        """
        self.dataset, self.image_size = dataset, image_size
        self._resized = resized or Resizing(dataset, image_size)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """Image uint8 [3, h, w] and target of ``index``."""
        return self._resized[index]
