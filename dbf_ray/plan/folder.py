"""What a plan is made from: the data of a configuration, read and found sound."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from dbf_ray.build.data import make_split
from dbf_ray.config import Config, DataConfig, with_overrides
from dbf_ray.data import Dataset
from dbf_ray.data.digest import data_facts, digest_of
from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.readers import find_reader, recognise
from dbf_ray.data.samples import scene_of
from dbf_ray.detectors.backbones.download import DEFAULT_FILE
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.plan.choices import Facts
from dbf_ray.plan.objects import Objects, objects_of

EVALUATED = ("val", "valid", "validation", "test")  # names of splits to evaluate on, the first that is there
SUBPIXEL_SHARE = 0.9


def with_data(config: Config, root: Path | None, given: frozenset[str]) -> Config:
    """The configuration with format and splits of the folder ``root``, as far as they are not ``given``.

    Raises:
        DataError: there is no such folder, its format is not known, or it has no split to train on.
        ConfigError: generated scenes are asked for, and a folder.
    """
    root = root or config.data.root
    if root is None:
        return config
    if "data.name" in given and config.data.name == "synthetic":
        raise ConfigError(
            f"data.name must be the format of {root}, got synthetic, which needs no folder; leave the folder "
            "out, or give its format as --data.name"
        )
    root = root.expanduser().resolve()
    name = config.data.name if "data.name" in given else recognise(root)
    found = {"data.root": str(root), "data.name": name}
    splits = find_reader(name).splits(root)
    if splits and "data.train_split" not in given and "train" not in splits:
        raise DataError(
            f"{root}: a folder that is divided must have a split to train on, train or one that is named; "
            f"there are {', '.join(splits)}; give one as --data.train_split"
        )
    if splits and "data.val_split" not in given:
        others = set(splits) - set(config.data.train_split.split("+"))
        found["data.val_split"] = next((split for split in EVALUATED if split in others), "val")
    elif splits and not set(config.data.val_split.split("+")) <= set(splits):
        raise DataError(
            f"{root}: data.val_split must be a split of the folder, got {config.data.val_split}; there are "
            f"{', '.join(splits)}"
        )
    return with_overrides(config, found)


def look(config: Config, gpu: bool) -> Facts:
    """Read the labels and headers of all images.

    Raises:
        DataError: they cannot be read, no training image has an object, a class occurs only where it is
            evaluated, or nearly all boxes are smaller than a pixel.
    """
    data = config.data
    train_set = make_split(data, data.train_split)
    objects, splits = objects_of(train_set), {data.train_split: data_facts(train_set)}
    check_pixels(objects, str(data.root or data.name))
    evaluated = None
    if data.root is None or has_split(data):
        eval_set = make_split(data, data.val_split, train_set.classes)
        evaluated, splits[data.val_split] = objects_of(eval_set), data_facts(eval_set)
        check_classes(objects, evaluated, data.train_split, data.val_split)
    fetched = {"mobilenet_v2": str(DEFAULT_FILE.resolve())} if DEFAULT_FILE.exists() else {}
    place = functools.partial(_place, train_set, objects)
    scenes = len({scene_of(image_id) for image_id in train_set.image_ids})
    return Facts(objects, evaluated, gpu, scenes, digest_of(splits), place, fetched)


def has_split(data: DataConfig) -> bool:
    """Whether the folder has the split (or all of those joined by "+") that is evaluated on, and none of it
    is trained on.
    """
    found = [] if data.root is None else find_reader(data.name).splits(data.root)
    wanted = set(data.val_split.split("+"))
    return bool(found) and wanted <= set(found) - set(data.train_split.split("+"))


def _place(dataset: Dataset, objects: Objects, index: int) -> tuple[Path | None, int | None]:
    if not isinstance(dataset, LabelledDataset):
        return None, None
    image = int(objects.image[index])
    return dataset.place(image, index - int(torch.searchsorted(objects.image, image)))


def check_classes(objects: Objects, evaluated: Objects, train: str, val: str) -> None:
    """Refuse a class that is evaluated and never trained.

    Raises:
        DataError: there is one.
    """
    counts = (part.labels.bincount(minlength=len(objects.classes)) for part in (objects, evaluated))
    only = [name for name, own, other in zip(objects.classes, *counts, strict=True) if other and not own]
    if only:
        raise DataError(
            f"every class must have an object to train on, {', '.join(only)} occurs in {val} alone; move "
            f"some of its images to {train}, or correct the labels of {val}"
        )


def check_pixels(objects: Objects, place: str) -> None:
    """Refuse labels that can hardly be in pixels.

    Raises:
        DataError: there is no object, or nine tenths of the boxes are below one pixel.
    """
    if not len(objects):
        raise DataError(
            f"{place}: a plan needs at least one object to train on, got none; correct the labels"
        )
    below = (objects.boxes[:, 2:4].amax(-1) < 1).double().mean().item()
    if below >= SUBPIXEL_SHARE:
        raise DataError(
            f"{place}: coordinates must be in pixels, {below:.0%} of the boxes are smaller than one; "
            "normalised coordinates? Multiply them by the images' width and height, or name the format"
        )
