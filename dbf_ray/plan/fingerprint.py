"""The fingerprint of a data set: what of it a plan is made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dbf_ray.plan.objects import Objects, scaled

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
TOO_SHORT = 3.0  # pixels: of a short side, below which a detector sees hardly anything


def fingerprint(objects: Objects, image_size: int) -> dict[str, Any]:
    """Counts and distributions, all lengths in pixels of images resized to ``image_size``.

    Returns:
        ``images``, ``images_without_objects``, ``objects``, ``difficult``, ``image_size``; ``image_sizes``:
        quantiles of the long and the short side of the images as they are; ``all`` and ``classes`` by name,
        each with ``objects``, ``difficult`` and quantiles of ``long_side``, ``short_side``, ``aspect_ratio``
        and ``angle`` (degrees from 0 to 45, between the long side and the nearest axis of the image).
    """
    shown = scaled(objects, image_size)
    counts = torch.bincount(objects.image, minlength=len(objects.sizes))
    everything = torch.arange(len(objects))
    by_class = {
        name: _group(shown, everything[objects.labels == label]) for label, name in enumerate(objects.classes)
    }
    return {
        "images": len(objects.sizes),
        "images_without_objects": int((counts == 0).sum()),
        "objects": len(objects),
        "difficult": int(objects.difficult.sum()),
        "image_size": image_size,
        "image_sizes": {
            "long_side": quantiles(objects.sizes.amax(-1)),
            "short_side": quantiles(objects.sizes.amin(-1)),
        },
        "all": _group(shown, everything),
        "classes": by_class,
    }


def quantiles(values: Tensor, shares: Sequence[float] = QUANTILES) -> dict[str, float | None]:
    """Quantiles by share; None where there are no values."""
    if not len(values):
        return {f"{share:g}": None for share in shares}
    found = torch.quantile(values.double(), torch.tensor(shares, dtype=torch.float64))
    return {f"{share:g}": round(value, 3) for share, value in zip(shares, found.tolist(), strict=True)}


def too_short(objects: Objects, image_size: int, least: float = TOO_SHORT) -> Tensor:
    """Indices of the objects whose short side will be below ``least`` pixels."""
    return torch.nonzero(scaled(objects, image_size).boxes[:, 2:4].amin(-1) < least).squeeze(-1)


def _group(objects: Objects, which: Tensor) -> dict[str, Any]:
    boxes = objects.boxes[which]
    long, short = boxes[:, 2:4].amax(-1), boxes[:, 2:4].amin(-1)
    turned = torch.remainder(boxes[:, 4], 90)
    return {
        "objects": len(which),
        "difficult": int(objects.difficult[which].sum()),
        "long_side": quantiles(long),
        "short_side": quantiles(short),
        "aspect_ratio": quantiles(long / short.clamp(min=1e-12)),
        "angle": quantiles(torch.minimum(turned, 90 - turned)),
    }
