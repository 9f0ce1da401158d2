"""Data sets of oriented objects, their views for training and evaluation, and the loaders that batch them.

A new data set is one file with a class that meets :class:`.samples.Dataset`, and one line in ``DATASETS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dbf_ray.data.decoded import DecodedImages
from dbf_ray.data.dota import DotaDataset
from dbf_ray.data.loaders import Batch, EvalLoader, TrainLoader, eval_loader, train_loader
from dbf_ray.data.samples import Dataset, Sample, Subset, Target, make_target, signature, sizes_of, split_selection
from dbf_ray.data.scene_objects import CLASSES as SYNTHETIC_CLASSES
from dbf_ray.data.synthetic import SyntheticDataset
from dbf_ray.data.transforms import EvalView, TrainView, resized_size
from dbf_ray.errors import ConfigError, DataError


@dataclass(frozen=True)
class DatasetRequest:
    """What a data set may be asked for; each takes what concerns it."""

    split: str
    root: Path | None
    classes: list[str] | None
    images: int
    image_size: int
    drop_empty: bool


def _synthetic(request: DatasetRequest) -> Dataset:
    if request.classes is not None and request.classes != SYNTHETIC_CLASSES:
        raise DataError(f"generated scenes have the classes {', '.join(SYNTHETIC_CLASSES)}, got {request.classes}; leave data.classes out")
    return SyntheticDataset(request.split, request.images, request.image_size)


def _dota(request: DatasetRequest) -> Dataset:
    if request.root is None:
        raise DataError(
            "data set dota needs data.root, got none; give the folder that holds train/ and val/, each with images/ and labelTxt/"
        )
    return DotaDataset(request.root, request.split, request.classes, request.drop_empty)


DATASETS: dict[str, Callable[[DatasetRequest], Dataset]] = {
    "synthetic": _synthetic,
    "dota": _dota,
}


def make_dataset(
    name: str,
    split: str = "train",
    *,
    root: Path | str | None = None,
    classes: Sequence[str] | None = None,
    images: int = 240,
    image_size: int = 384,
    drop_empty: bool = False,
) -> Dataset:
    """Make one split of a data set, everything about its labels checked.

    Args:
        name: a key of ``DATASETS``.
        split: "train" or "val".
        root: folder of the data (dota).
        classes: class names in label order; None: those found in train (dota).
        images: number of scenes (synthetic).
        image_size: side of a scene in pixels (synthetic).
        drop_empty: leave images without objects out (dota; generated scenes always have objects).

    Raises:
        ConfigError: no such data set.
        DataError: the data are not usable.
    """
    if name not in DATASETS:
        raise ConfigError(f"data.name must be one of {', '.join(DATASETS)}, got {name!r}; choose one of them")
    request = DatasetRequest(
        split, None if root is None else Path(root), None if classes is None else list(classes), images, image_size, drop_empty
    )
    return DATASETS[name](request)


__all__ = [
    "DATASETS",
    "Batch",
    "Dataset",
    "DatasetRequest",
    "DecodedImages",
    "DotaDataset",
    "EvalLoader",
    "EvalView",
    "Sample",
    "Subset",
    "SyntheticDataset",
    "Target",
    "TrainLoader",
    "TrainView",
    "eval_loader",
    "make_dataset",
    "make_target",
    "resized_size",
    "signature",
    "sizes_of",
    "split_selection",
    "train_loader",
]
