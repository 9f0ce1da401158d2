"""The objects of the images that a data set's patches were cut from, by which merged detections are
judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dbf_ray.data.labelled import LabelledDataset, to_boxes
from dbf_ray.data.patches.split import ORIGINALS
from dbf_ray.data.readers import Item
from dbf_ray.data.readers.dota import read_labels
from dbf_ray.data.samples import Dataset, Subset
from dbf_ray.errors import DataError
from dbf_ray.geometry.windows import parse_patch_name


def originals_of(dataset: Dataset) -> dict[str, Mapping[str, Any]] | None:
    """Objects by image, in the image's pixels: boxes [n, 5], labels [n], difficult [n]; None where the images
    are no patches of a split.

    Only images of which the data set has patches; a class that the data set does not know is left out.

    Raises:
        DataError: the labels that the split wrote are missing or broken.
    """
    whole, files = _whole(dataset), original_files(dataset)
    if whole is None or files is None:
        return None
    found: dict[str, Mapping[str, Any]] = {}
    for image, file in files.items():
        labels = read_labels(file)
        if labels.problems:
            raise labels.problems[0].error()
        known = [one for one in labels.objects if one.name in whole.classes]
        found[image] = {
            "boxes": to_boxes(known, file),
            "labels": torch.tensor([whole.classes.index(one.name) for one in known], dtype=torch.int64),
            "difficult": torch.tensor([one.difficult for one in known], dtype=torch.bool),
        }
    return found


def original_files(dataset: Dataset) -> dict[str, Path] | None:
    """The label files of these images by image, as :func:`originals_of` reads them; None where there are
    none.

    Raises:
        DataError: one is missing.
    """
    whole = _whole(dataset)
    if whole is None:
        return None
    items = {item.name: item for item in whole.items}
    own = [items[image_id] for image_id in dataset.image_ids]
    if not all(folder.is_dir() for folder in {_folder(item) for item in own}):
        return None
    # under its path, as its patches are under theirs
    files = {
        parse_patch_name(item.name).image: _folder(item) / f"{parse_patch_name(item.below).image}.txt"
        for item in own
    }
    for file in files.values():
        if not file.is_file():
            raise DataError(
                f"{file.parent} must hold the labels of every image that was cut, {file.name} is missing; "
                "split the data again"
            )
    return dict(sorted(files.items()))


def _whole(dataset: Dataset) -> LabelledDataset | None:
    whole = dataset.dataset if isinstance(dataset, Subset) else dataset
    return whole if isinstance(whole, LabelledDataset) else None


def _folder(item: Item) -> Path:
    """Where the labels of the uncut images are, if ``item`` is a patch."""
    return (item.folder or item.image.parent).parent / ORIGINALS
