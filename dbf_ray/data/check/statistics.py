"""What a data set consists of, in numbers: counts, quantiles and histograms as plain dictionaries."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dbf_ray.data.check.look import ImageRecord

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SIZE_EDGES = tuple(float(2 ** (half / 2)) for half in range(0, 25))  # 1 to 4096 pixels in half octaves
ASPECT_EDGES = tuple(1 + step / 4 for step in range(0, 61))  # 1 to 16
ANGLE_EDGES = tuple(float(angle) for angle in range(-90, 91, 5))  # degrees
COUNT_EDGES = (0.0, 1.0, *(float(2**power) for power in range(1, 15)))  # 0, 1, 2 to 3, 4 to 7, ...
MOST_SIZES = 1000  # different image sizes that are listed


def statistics(splits: Mapping[str, Sequence[ImageRecord]]) -> dict[str, Any]:
    """Counts and distributions over all images; those that are in several splits count once in what is not by
    split.

    Returns:
        ``images``, ``objects``, ``difficult``, ``images_without_objects``; ``splits``: the same for each
        split; ``classes``: name -> ``objects``, ``images``, ``difficult`` and ``splits`` (objects by split),
        most frequent first; ``past_border``: ``objects`` that reach past the image's border, and their
        ``share``; ``size`` (square root of the area), ``long_side``, ``short_side`` (pixels), ``angle``
        (degrees in [-90, 90)), ``aspect_ratio`` (>= 1), ``objects_per_image``, ``image_width``,
        ``image_height``: ``mean``, ``quantiles`` and ``histogram`` (``edges`` [k + 1], ``counts`` [k]; what
        lies beyond the edges is in the outermost bins); ``image_sizes``: [width, height, images] of each,
        most frequent first.
    """
    records = list({id(record): record for part in splits.values() for record in part}.values())
    boxes = np.concatenate([record.objects.boxes for record in records]) if records else np.zeros((0, 5))
    long, short = boxes[:, 2], boxes[:, 3]
    sizes = np.array([record.pixels.size for record in records if record.pixels is not None]).reshape(-1, 2)
    past = sum(int(record.objects.past_border.sum()) for record in records)
    return {
        **_counts(records),
        "splits": {name: _counts(part) for name, part in splits.items()},
        "classes": _classes(records, splits),
        "past_border": {"objects": past, "share": past / len(boxes) if len(boxes) else 0.0},
        "size": distribution(np.sqrt(long * short), SIZE_EDGES),
        "long_side": distribution(long, SIZE_EDGES),
        "short_side": distribution(short, SIZE_EDGES),
        "angle": distribution(boxes[:, 4], ANGLE_EDGES),
        "aspect_ratio": distribution(long / np.maximum(short, 1e-12), ASPECT_EDGES),
        "objects_per_image": distribution([len(record.objects) for record in records], COUNT_EDGES),
        "image_width": distribution(sizes[:, 1], SIZE_EDGES),
        "image_height": distribution(sizes[:, 0], SIZE_EDGES),
        "image_sizes": _image_sizes(sizes),
    }


def distribution(values: ArrayLike, edges: Sequence[float]) -> dict[str, Any]:
    """Mean, quantiles and histogram of numbers; quantiles and mean are None where there are none."""
    numbers = np.asarray(values, dtype=np.float64)
    counts, _ = np.histogram(numbers.clip(edges[0], np.nextafter(edges[-1], edges[0])), edges)
    found: Sequence[float | None] = (
        np.quantile(numbers, QUANTILES).tolist() if len(numbers) else [None] * len(QUANTILES)
    )
    return {
        "mean": float(numbers.mean()) if len(numbers) else None,
        "quantiles": {f"{share:g}": value for share, value in zip(QUANTILES, found, strict=True)},
        "histogram": {"edges": list(edges), "counts": counts.tolist()},
    }


def _counts(records: Sequence[ImageRecord]) -> dict[str, int]:
    return {
        "images": len(records),
        "images_without_objects": sum(not len(record.objects) for record in records),
        "objects": sum(len(record.objects) for record in records),
        "difficult": sum(int(record.objects.difficult.sum()) for record in records),
    }


def _classes(
    records: Sequence[ImageRecord], splits: Mapping[str, Sequence[ImageRecord]]
) -> dict[str, dict[str, Any]]:
    objects: collections.Counter[str] = collections.Counter()
    images: collections.Counter[str] = collections.Counter()
    difficult: collections.Counter[str] = collections.Counter()
    for record in records:
        objects.update(record.objects.names)
        images.update(set(record.objects.names))
        difficult.update(
            name for name, hard in zip(record.objects.names, record.objects.difficult, strict=True) if hard
        )
    by_split = {
        name: collections.Counter(one for record in part for one in record.objects.names)
        for name, part in splits.items()
    }
    return {
        name: {
            "objects": count,
            "images": images[name],
            "difficult": difficult[name],
            "splits": {split: counter[name] for split, counter in by_split.items()},
        }
        for name, count in sorted(objects.items(), key=lambda pair: (-pair[1], pair[0]))
    }


def _image_sizes(sizes: NDArray[np.int64]) -> list[list[int]]:
    counted = collections.Counter((int(width), int(height)) for height, width in sizes)
    ordered = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    return [[width, height, count] for (width, height), count in ordered[:MOST_SIZES]]
