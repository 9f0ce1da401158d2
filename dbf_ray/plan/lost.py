"""Objects that no patch holds whole: of images that ``prepare-data split`` has cut, the labels of the uncut
ones tell which these are. In the patches they are missing, or cut and so marked difficult.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dbf_ray.data import Dataset, Subset
from dbf_ray.data.patches.originals import original_files
from dbf_ray.data.readers import LabelledObject
from dbf_ray.data.readers.dota import read_labels
from dbf_ray.data.samples import sizes_of
from dbf_ray.geometry.windows import parse_patch_name

_SLACK = 1e-3  # pixels

Area = tuple[float, float, float, float]
"""Left, top, right and bottom, pixels of the uncut image."""


def held_by_class(dataset: Dataset, most: int | None = None) -> Tensor | None:
    """The share [C] of each class's objects that at least one patch holds whole, difficult ones apart; 1 for
    a class without any.

    Args:
        dataset: images; what they were cut from is told by their names and the folder of original labels.
        most: uncut images to look at, drawn by a seed; None: all.

    Returns:
        None where the images are no patches of a split.

    Raises:
        DataError: original labels are missing.
    """
    sizes = sizes_of(dataset)
    if (
        sizes is None
        or not len(dataset)
        or parse_patch_name(dataset.image_ids[0]).image == dataset.image_ids[0]
    ):
        return None
    patches: dict[str, list[int]] = {}
    for index, name in enumerate(dataset.image_ids):
        patches.setdefault(parse_patch_name(name).image, []).append(index)
    images = sorted(patches)
    images = images if most is None else random.Random(0).sample(images, min(most, len(images)))
    files = original_files(_some_of(dataset, [index for image in images for index in patches[image]]))
    if files is None:
        return None
    counts = torch.zeros(2, len(dataset.classes), dtype=torch.float64)
    numbers = {name: number for number, name in enumerate(dataset.classes)}
    for image in images:
        windows: list[Area] = []
        for index in patches[image]:
            patch, (height, width) = parse_patch_name(dataset.image_ids[index]), sizes[index]
            windows.append((patch.x, patch.y, patch.x + width, patch.y + height))
        _count(counts, numbers, files[image], windows)
    return torch.where(counts[1] > 0, counts[0] / counts[1].clamp(min=1), 1.0)


def _some_of(dataset: Dataset, indices: list[int]) -> Subset:
    if isinstance(dataset, Subset):
        return _some_of(dataset.dataset, [dataset.indices[index] for index in indices])
    return Subset(dataset, indices)


def _count(counts: Tensor, numbers: dict[str, int], file: Path, windows: Sequence[Area]) -> None:
    """Add the objects of an image that are held whole to the first row of ``counts`` [2, C], all of them to
    the second.
    """
    for one in read_labels(file).objects:
        if one.name in numbers and not one.difficult:
            counts[0, numbers[one.name]] += is_held(one, windows)
            counts[1, numbers[one.name]] += 1


def is_held(one: LabelledObject, windows: Sequence[Area]) -> bool:
    """Whether one of the windows, which cover an image, holds all of an object that lies on the image."""
    xs, ys = one.corners[0::2], one.corners[1::2]
    found = (min(xs), min(ys), max(xs), max(ys))
    image = (0.0, 0.0, max(window[2] for window in windows), max(window[3] for window in windows))
    if not _within(found, image):
        from shapely import MultiPoint, box

        part = MultiPoint(list(zip(xs, ys, strict=True))).convex_hull.intersection(box(*image))
        if part.is_empty:
            return True  # it is not on the image: nothing that a patch could lose
        found = part.bounds
    return any(_within(found, window) for window in windows)


def _within(inner: Area, outer: Area) -> bool:
    low = inner[0] >= outer[0] - _SLACK and inner[1] >= outer[1] - _SLACK
    return low and inner[2] <= outer[2] + _SLACK and inner[3] <= outer[3] + _SLACK
