"""Which of the assigned anchors or regions a two-stage detector learns from in a step."""

from __future__ import annotations

import torch
from torch import Tensor

from dbf_ray.detectors.assigners import BACKGROUND


def sample(
    assigned: Tensor, count: int | None, positive_fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw positives and negatives at random (mmdet's ``RandomSampler``).

    At most ``positive_fraction * count`` positives are drawn, and as many negatives as are missing to
    ``count``.

    Args:
        assigned: int64 [N], an object's index >= 0, or BACKGROUND, or IGNORED.
        count: how many to draw; None takes everything that is not ignored.
        positive_fraction: 0..1.
        generator: a CPU generator; seeded by the image, the choice depends neither on ranks nor on
            micro-batches.

    Returns:
        Indices int64 of the positives [P] and of the negatives [Q], ascending.
    """
    positive = torch.nonzero(assigned >= 0).squeeze(-1)
    negative = torch.nonzero(assigned == BACKGROUND).squeeze(-1)
    if count is None:
        return positive, negative
    positive = _draw(positive, int(count * positive_fraction), generator)
    return positive, _draw(negative, count - len(positive), generator)


def _draw(indices: Tensor, count: int, generator: torch.Generator) -> Tensor:
    if len(indices) <= count:
        return indices
    chosen = torch.randperm(len(indices), generator=generator)[:count].sort().values
    return indices[chosen.to(indices.device)]
