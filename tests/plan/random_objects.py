"""Objects without images."""

from __future__ import annotations

import torch

from dbf_ray.geometry import canonicalize
from dbf_ray.plan.choices import Facts
from dbf_ray.plan.objects import Objects


def spread(count: int, long: float, short: float, *, side: int = 256, seed: int = 0) -> Objects:
    """``count`` objects of one class at any place and angle of four square images, sides within a tenth."""
    stream = torch.Generator().manual_seed(seed)
    drawn = torch.rand(count, 5, generator=stream, dtype=torch.float64)
    sides = torch.tensor([long, short]) * (0.9 + 0.2 * drawn[:, 2:4])
    boxes = torch.cat([drawn[:, :2] * side, sides, drawn[:, 4:] * 180 - 90], -1)
    return Objects(
        canonicalize(boxes),
        torch.zeros(count, dtype=torch.int64),
        torch.zeros(count, dtype=torch.bool),
        torch.arange(count) % 4,
        torch.tensor([[side, side]] * 4),
        ["ship"],
    ).pick(torch.argsort(torch.arange(count) % 4, stable=True))


def known(objects: Objects, **more: object) -> Facts:
    """Facts of a folder that is divided, without a GPU."""
    return Facts(objects, objects, gpu=False, **more)  # type: ignore[arg-type]
