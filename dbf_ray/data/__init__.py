"""Data sets of oriented objects, their views for training and evaluation, and the loaders that batch them.

A new data set is one file with a class that meets :class:`.samples.Dataset`, and one line in ``DATASETS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dbf_ray.data.augment import Augmentation
from dbf_ray.data.class_lists import CLASS_LISTS, class_names
from dbf_ray.data.digest import data_digest
from dbf_ray.data.images.decoded import DecodedImages
from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.loaders import Batch, EvalLoader, TrainLoader, eval_loader, train_loader
from dbf_ray.data.patches.originals import originals_of
from dbf_ray.data.readers import READER_RULE, READERS, Reader, is_reader
from dbf_ray.data.samples import (
    Dataset,
    Sample,
    Subset,
    Target,
    make_target,
    signature,
    sizes_of,
    split_selection,
)
from dbf_ray.data.scenes.objects import CLASSES as SYNTHETIC_CLASSES
from dbf_ray.data.scenes.synthetic import SyntheticDataset
from dbf_ray.data.transforms import EvalView, TrainView, resized_size
from dbf_ray.errors import DataError
from dbf_ray.members import find_member, from_outside


@dataclass(frozen=True)
class DatasetRequest:
    """What a data set may be asked for; each takes what concerns it."""

    split: str
    root: Path | None
    classes: str | list[str] | None
    images: int
    image_size: int
    drop_empty: bool
    classes_from: str


def _synthetic(request: DatasetRequest) -> Dataset:
    if request.classes is not None and request.classes != SYNTHETIC_CLASSES:
        raise DataError(
            f"generated scenes have the classes {', '.join(SYNTHETIC_CLASSES)}, got {request.classes}; leave "
            "`classes` out"
        )
    return SyntheticDataset(request.split, request.images, request.image_size)


def _labelled(name: str, reader: Reader, request: DatasetRequest) -> Dataset:
    if request.root is None:
        raise DataError(f"data set {name} needs `root`, got none; give the folder that holds {reader.layout}")
    return LabelledDataset(
        reader, request.root, request.split, request.classes, request.drop_empty, request.classes_from
    )


DATASETS: dict[str, Callable[[DatasetRequest], Dataset]] = {
    "synthetic": _synthetic,
    **{name: partial(_labelled, name, reader) for name, reader in READERS.items()},
}


def make_dataset(
    name: str,
    split: str = "train",
    *,
    root: Path | str | None = None,
    classes: str | Sequence[str] | None = None,
    images: int = 240,
    image_size: int = 384,
    drop_empty: bool = False,
    classes_from: str = "train",
) -> Dataset:
    """Make one split of a data set, everything about its labels checked.

    Args:
        name: a key of ``DATASETS``, or a dotted path ``package.module:MyReader``.
        split: "train" or "val"; of images in files any that the folder has, or several joined by "+".
        root: folder of the data (all but synthetic).
        classes: class names in label order, or the name of a public list; None: the format's own, or those
            found in ``classes_from``.
        images: number of scenes (synthetic).
        image_size: side of a scene in pixels (synthetic).
        drop_empty: leave images without objects out (generated scenes always have objects).
        classes_from: the split that tells the classes (dota, coco).

    Raises:
        ConfigError: no such data set.
        DataError: the data are not usable.
    """
    names = classes if classes is None or isinstance(classes, str) else list(classes)
    request = DatasetRequest(
        split, None if root is None else Path(root), names, images, image_size, drop_empty, classes_from
    )
    return find_dataset(name)(request)


def find_dataset(name: str) -> Callable[[DatasetRequest], Dataset]:
    """What makes a data set: a row of :data:`DATASETS`; or, for a dotted path to a reader of labels, images
    and labels in files that it reads.

    Raises:
        ConfigError: no such data set.
    """
    found = find_member("data set", name, DATASETS, READER_RULE, is_reader)
    return partial(_labelled, name, found()) if from_outside(name) else found


__all__ = [
    "CLASS_LISTS",
    "DATASETS",
    "READERS",
    "Augmentation",
    "Batch",
    "Dataset",
    "DatasetRequest",
    "DecodedImages",
    "EvalLoader",
    "EvalView",
    "LabelledDataset",
    "Sample",
    "Subset",
    "SyntheticDataset",
    "Target",
    "TrainLoader",
    "TrainView",
    "class_names",
    "data_digest",
    "eval_loader",
    "make_dataset",
    "make_target",
    "originals_of",
    "resized_size",
    "signature",
    "sizes_of",
    "split_selection",
    "train_loader",
]
