"""Image size, or patches: so large that objects are seen, no larger than memory holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dbf_ray.config import Config
from dbf_ray.plan.choices import Choice, Facts
from dbf_ray.plan.kinds import is_two_stage
from dbf_ray.plan.objects import Objects

SIDES = (256, 320, 384, 448, 512, 640, 768, 896, 1024)  # pixels
SEEN = 0.95  # of the objects
LARGEST = {False: 512, True: 1024}  # on a CPU, on a GPU: what a batch of a few images takes in some 10 GB
CELL = {False: 8, True: 4}  # pixels of the finest level: of one stage, of two
SPARED = 1.25  # images no larger than a side by this factor are not shrunk
PATCH_OVERLAP, MOST_OVERLAP = 0.2, 0.75  # of a patch


@dataclass(frozen=True)
class ImageSize:
    """A side, and how many pixels objects have there.

    Attributes:
        side: pixels, of the long side of images, or of patches cut from them.
        patches: whether images are to be cut.
        overlap: of patches, pixels.
        needed: the side at which 95 % of the objects have a short side of a cell or more.
        short_side: that 95 % of the objects reach at ``side``, pixels.
        too_long: 95th percentile of long sides in pixels, where patches cannot overlap by as much; else 0.
    """

    side: int
    patches: bool
    overlap: int
    needed: float
    short_side: float
    too_long: int = 0

    @property
    def warning(self) -> str:
        """A clause on objects that patches may not hold; empty where there are none."""
        longer = f"; objects of {self.too_long} px and more may be whole in no patch"
        return longer if self.too_long else ""


def choose_image_size(
    objects: Objects, *, two_stages: bool, gpu: bool, largest: int | None = None
) -> ImageSize:
    """The least side at which 95 % of the objects that count have a short side of one cell of the finest
    level, or that of images that are hardly larger; never more than images (of these and of the smallest
    objects) have, nor than memory holds: then patches of what it holds, which overlap by the 95th percentile
    of long sides.

    Args:
        objects: those to train on, as labelled.
        two_stages: whether a proposal network is trained.
        gpu: whether on a GPU.
        largest: side that is held; None: that of what is trained on.
    """
    counted = objects.pick(torch.nonzero(~objects.difficult).squeeze(-1))
    counted = counted if len(counted) else objects
    long_sides = counted.sizes.amax(-1).double()[counted.image]
    shares = counted.boxes[:, 2:4].amin(-1).clamp(min=1e-6) / long_sides
    share = torch.quantile(shares, 1 - SEEN).item()
    needed, native = CELL[two_stages] / share, torch.quantile(objects.sizes.amax(-1).double(), 0.5).item()
    largest = largest or LARGEST[gpu]
    small = torch.quantile(long_sides[shares <= share * (1 + 1e-9)], 0.5).item()
    wanted = min(needed, max(native, small))
    if wanted <= largest:
        side = next((one for one in SIDES if one >= wanted), SIDES[-1])
        if side < native <= min(SPARED * side, largest):
            side = round(native)
        return ImageSize(side, False, 0, needed, side * share)
    reach = math.ceil(torch.quantile(counted.boxes[:, 2:4].amax(-1), 0.95).item())
    overlap = min(int(MOST_OVERLAP * largest), max(round(PATCH_OVERLAP * largest), reach))
    short = torch.quantile(counted.boxes[:, 2:4].amin(-1), 1 - SEEN).item()
    return ImageSize(largest, True, overlap, needed, short, reach if reach > overlap else 0)


def rule(facts: Facts, config: Config) -> list[Choice]:
    """``data.image_size``; whether images are cut instead is asked before (:func:`choose_image_size`)."""
    found = choose_image_size(facts.objects, two_stages=is_two_stage(config.detector.name), gpu=facts.gpu)
    why = f"{SEEN:.0%} of the objects have a short side of {found.short_side:.1f} px or more"
    why = f"as patches with an overlap of {found.overlap}: {why}" if found.patches else why
    return [Choice("data.image_size", found.side, why, "image size")]
