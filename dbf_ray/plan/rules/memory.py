"""Micro-batches: as many images at once as memory holds, and as many of these as make a batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from dbf_ray.config import Config
from dbf_ray.errors import ConfigError
from dbf_ray.plan.choices import Choice, Facts, costs_of
from dbf_ray.plan.costs import Costs, gigabytes
from dbf_ray.plan.rules.image_size import SIDES

DRAWN = 200  # batches, to see how far images are padded


def largest_part(bytes_of: Callable[[int], int], images: int, limit: float, divides: bool = True) -> int:
    """The most of ``images`` that take ``limit`` bytes or less at once; 0: not even one does.

    Args:
        bytes_of: what so many images take.
        images: in the whole batch.
        limit: bytes.
        divides: whether the batch has to be made of equal parts.
    """
    parts = [part for part in range(images, 0, -1) if not (divides and images % part)]
    return next((part for part in parts if bytes_of(part) <= limit), 0)


def side_that_fits(costs: Costs, image_size: int, limit: float) -> int | None:
    """The largest usual image size below ``image_size`` at which one image takes ``limit`` bytes or less, if
    what grows is in proportion to pixels; None: none does.
    """
    always = costs.bytes_of(1) - costs.grown_bytes[0]
    fits = [side for side in SIDES if always + costs.grown_bytes[0] * (side / image_size) ** 2 <= limit]
    return max((side for side in fits if side < image_size), default=None)


def padded_area(facts: Facts, config: Config, draws: int = DRAWN) -> float:
    """The mean area that images of a batch are padded to, as a share of the largest square: an oblong image
    among others that are turned takes as much as a square one.
    """
    data = config.data
    if data.pad_to == "square" or config.training.compile:
        return 1.0
    stream = torch.Generator().manual_seed(0)
    sizes = facts.objects.sizes.double()
    sizes = sizes / sizes.amax(-1, keepdim=True)
    shape = (draws, config.training.batch_size)
    drawn = sizes[torch.randint(len(sizes), shape, generator=stream)]
    turned = [name in ("rotate90", "rotate270", "transpose", "transverse") for name in data.flips]
    share = sum(turned) / (len(turned) + 1)
    swapped = torch.rand(shape, generator=stream) < share
    drawn = torch.where(swapped[..., None], drawn.flip(-1), drawn)
    scales = data.augment.scales or [1.0]
    if len(scales) == 2:
        factors = scales[0] + (scales[1] - scales[0]) * torch.rand(shape, generator=stream)
    else:
        factors = torch.tensor(scales)[torch.randint(len(scales), shape, generator=stream)]
    largest = max(1.0, *scales)
    sides = (drawn * factors[..., None] / largest).amax(1)
    return sides.prod(-1).mean().item()


def rule(facts: Facts, config: Config) -> list[Choice]:
    """``training.accumulation`` and ``training.micro_batch_gb``, ``evaluation.batch_size``, by
    ``--memory-gb``.

    Raises:
        ConfigError: not even one image fits.
    """
    limit = facts.budget.memory_gb
    if limit is None:
        return []
    costs, train, size = costs_of(facts, config), config.training, limit * 1e9
    own = max(1, train.batch_size // config.cluster.workers)

    def taken(images: int) -> int:
        return costs.bytes_of(images, math.ceil(own / images))

    part = largest_part(taken, own, size)
    if not part:
        smaller = side_that_fits(costs, config.data.image_size, size)
        step = (
            "give a lighter detector (--detector.backbone, --detector.fpn_channels)"
            if smaller is None
            else f"give --data.image_size {smaller}, of patches where objects get too small"
        )
        raise ConfigError(
            f"--memory-gb must hold a step of one image, which takes {gigabytes(taken(1))} at "
            f"{costs.side} px, got {limit:g}; {step}, or more memory"
        )
    sizes = [f"{gigabytes(taken(images))} with {images}" for images in sorted({1, min(2, own), part, own})]
    why = f"images at once: at most {', '.join(sizes)}"
    found = [Choice("training.accumulation", own // part, why, "memory")]
    if part < own:
        found.append(
            Choice("training.micro_batch_gb", limit, "larger parts where stages are frozen", "memory")
        )
    evaluated = largest_part(costs.evaluation_bytes_of, config.evaluation.batch_size, size, divides=False)
    if evaluated < config.evaluation.batch_size:
        why = f"{gigabytes(costs.evaluation_bytes_of(max(1, evaluated)))} at most"
        found.append(Choice("evaluation.batch_size", max(1, evaluated), why, "memory"))
    return found


def warnings(facts: Facts, config: Config) -> list[str]:
    """Where what was given takes more than ``--memory-gb``, or micro-batches change what is trained."""
    limit, train = facts.budget.memory_gb, config.training
    if limit is None:
        return []
    part = math.ceil(train.batch_size / (config.cluster.workers * train.accumulation))
    taken, found = costs_of(facts, config).bytes_of(part, train.accumulation), []
    if taken > limit * 1e9:
        found.append(
            f"{part} images at once take {gigabytes(taken)}, more than --memory-gb {limit:g}; "
            "training.accumulation stays as given"
        )
    if train.accumulation > 1 and config.detector.norm_eval is not True:
        found.append(f"batch norms are trained, by the statistics of {part} images at once")
    return found
