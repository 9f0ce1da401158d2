"""Random augmentations of training samples, which have no end: multi-scale resizing, free rotation, colour
jitter, in this order.

The fixed set of orientations (flips and quarter turns) is in :mod:`.transforms`. Every number is drawn from
the stream that is given, in an order that does not depend on which augmentations are on: an image is turned
by the same angle with colour jitter and without.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from dbf_ray.data.samples import Sample, Target, wrap_boxes
from dbf_ray.data.seeds import Stream
from dbf_ray.data.transforms import resize
from dbf_ray.errors import ConfigError

# ImageNet's mean colour, which a detector's normalization turns into nearly 0, as its padding is
FILL = (124.0, 116.0, 104.0)
SIDES = (32, 8192)  # pixels: what an image's long side may come to
COLOUR_LIMITS = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}

ColourChange = tuple[Callable[[Tensor, float], Tensor], float]


@dataclass(frozen=True)
class Augmentation:
    """What is changed at random, and how far. By default nothing is.

    Attributes:
        rotate: R, an image is turned by an angle from [-R, R] degrees, R in [0, 180].
        rotate_probability: chance that it is turned at all.
        scales: (low, high): it is scaled by a factor from this range; three or more: by one of these, all
            with equal chance; None: not.
        brightness: b in [0, 1], multiplied by a factor from [1 - b, 1 + b].
        contrast: the same for the distance to the mean grey value.
        saturation: the same for the distance to the grey image.
        hue: in [0, 0.5], turned by up to this share of the colour circle either way.

    Raises:
        ConfigError: a value is out of its range.
    """

    rotate: float = 0.0
    rotate_probability: float = 0.5
    scales: tuple[float, ...] | None = None
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name, limit in {"rotate": 180.0, "rotate_probability": 1.0, **COLOUR_LIMITS}.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                unit = " degrees" if name == "rotate" else ""
                raise ConfigError(f"`{name}` must be in 0..{limit:g}{unit}, got {value!r}; 0 switches it off")
        if self.scales is not None:
            object.__setattr__(self, "scales", tuple(float(factor) for factor in self.scales))
            self._check_scales(list(self.scales))

    @staticmethod
    def _check_scales(scales: list[float]) -> None:
        if (
            len(scales) < 2
            or not all(0 < factor < math.inf for factor in scales)
            or (len(scales) == 2 and scales[0] > scales[1])
        ):
            raise ConfigError(
                "`scales` must be [low, high] with 0 < low <= high, or three or more factors > 0 to choose "
                f"from, got {scales!r}; [0.5, 1.5] is usual, null switches it off"
            )

    @property
    def switched_on(self) -> dict[str, Any]:
        """The options that change anything, with their values."""
        found: dict[str, Any] = {}
        if self.rotate > 0 and self.rotate_probability > 0:
            found["rotate"] = self.rotate
        if self.scales is not None and set(self.scales) != {1.0}:
            found["scales"] = list(self.scales)
        return found | {name: getattr(self, name) for name in COLOUR_LIMITS if getattr(self, name) > 0}

    def long_sides(self, image_size: int) -> tuple[int, int]:
        """The shortest and the longest that the long side of images of ``image_size`` pixels may come to.

        Raises:
            ConfigError: that is less than 32 or more than 8192 pixels.
        """
        factors = self.scales or (1.0,)
        shortest, longest = round(image_size * min(factors)), round(image_size * max(factors))
        if shortest < SIDES[0] or longest > SIDES[1]:
            raise ConfigError(
                f"`scales` must leave the long side of images between {SIDES[0]} and {SIDES[1]} pixels, got "
                f"{list(factors)} x `image_size` {image_size} = {shortest} to {longest}; change either"
            )
        return shortest, longest

    def __call__(self, image: Tensor, target: Target, stream: Stream) -> Sample:
        """:func:`augment`."""
        return augment(image, target, self, stream)


def augment(image: Tensor, target: Target, augmentation: Augmentation, stream: Stream) -> Sample:
    """A sample changed at random: scaled, then turned, then recoloured.

    Args:
        image: uint8 [3, H, W], resized. It is this that is sampled again: an image that is enlarged gets no
            sharper. To see small scales and full detail, resize to the largest size and scale by factors <=
            1.
        target: its boxes may be in any form.
        augmentation: what may be changed.
        stream: where all numbers are drawn from.

    Returns:
        Image uint8 [3, h, w] and target, its boxes canonical; target["scale"] is relative to the same image
        as before. What was given is not changed.
    """
    factor = draw_factor(augmentation, stream)
    turned, degrees = (
        stream.uniform(0, 1) < augmentation.rotate_probability,
        stream.uniform(-augmentation.rotate, augmentation.rotate),
    )
    changes = draw_colour(augmentation, stream)
    target = Target({**target, "boxes": wrap_boxes(target["boxes"], (image.shape[-2], image.shape[-1]))})
    if factor != 1:
        image, target = rescale(image, target, factor)
    if turned and augmentation.rotate > 0:
        image, target = rotate(image, target, degrees)
    return recolour(image, changes), target


def draw_factor(augmentation: Augmentation, stream: Stream) -> float:
    """By what an image is scaled; takes one number whatever is on."""
    scales = augmentation.scales or (1.0, 1.0)
    return stream.uniform(*scales) if len(scales) == 2 else stream.choice(scales)


def draw_colour(augmentation: Augmentation, stream: Stream) -> list[ColourChange]:
    """The changes of colour that are on, in random order, as torchvision's ``ColorJitter``; takes as many
    numbers whatever is on.
    """
    a = augmentation
    functions = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    reach = (a.brightness, a.contrast, a.saturation, a.hue)
    middle = (1.0, 1.0, 1.0, 0.0)
    values = [stream.uniform(m - r, m + r) for m, r in zip(middle, reach, strict=True)]
    return [
        (functions[which], values[which]) for which in stream.permutation(len(functions)) if reach[which] > 0
    ]


def rescale(image: Tensor, target: Target, factor: float) -> Sample:
    """Scale a sample so that the long side is ``factor`` times what it was, in whole pixels."""
    long_side = max(2, round(factor * max(image.shape[-2:])))  # torch cannot make an image of one pixel
    image, scaled = resize(image, target, long_side)
    return image, Target({**scaled, "scale": target.get("scale", 1.0) * scaled["scale"]})


def rotate(image: Tensor, target: Target, degrees: float) -> Sample:
    """Turn a sample about the image's centre, counter-clockwise as seen, at constant size; corners that it
    leaves have the mean colour.

    Objects whose centre leaves the image are dropped, as in MMRotate's ``PolyRandomRotate``; unlike there,
    small objects stay, and so does an image of which no object is left.

    Args:
        image: uint8 [3, H, W].
        target: its boxes may be in any form.
        degrees: any.
    """
    height, width = image.shape[-2:]
    # torchvision's own ``fill`` weighs the outermost pixels twice, so that a seam up to a quarter darker runs
    # between image and filling. Where the filling is zero there is none.
    fill = torch.tensor(FILL).view(3, 1, 1)
    turned = functional.rotate(image.float() - fill, degrees, interpolation=InterpolationMode.BILINEAR)
    image = (turned + fill).round().clamp(0, 255).to(torch.uint8)

    # The closed form instead of torchvision's kernel for boxes. That one goes by float32 corners, which
    # changes the sides and, of slim boxes, the angle by a hundredth of a degree; and it needs clamping_mode
    # None, or boxes at the border are bent, flattened and moved.
    boxes = target["boxes"].as_subclass(Tensor).double()
    angle = math.radians(degrees)
    dx, dy = boxes[:, 0] - width / 2, boxes[:, 1] - height / 2
    cx = width / 2 + dx * math.cos(angle) + dy * math.sin(angle)
    cy = height / 2 - dx * math.sin(angle) + dy * math.cos(angle)
    kept = (cx > 0) & (cx < width) & (cy > 0) & (cy < height)
    boxes = torch.stack([cx, cy, boxes[:, 2], boxes[:, 3], boxes[:, 4] + degrees], -1)[kept]
    labels, difficult = target["labels"][kept], target["difficult"][kept]
    return image, Target(
        {**target, "boxes": wrap_boxes(boxes, (height, width)), "labels": labels, "difficult": difficult}
    )


def recolour(image: Tensor, changes: list[ColourChange]) -> Tensor:
    """An image uint8 [3, H, W] with changes of colour made one after the other, rounded once at the end."""
    if not changes:
        return image
    colours = image.float() / 255
    for function, value in changes:
        colours = function(colours, value)
    return (colours * 255).round().to(torch.uint8)
