"""Data sets, what is kept of them in memory, and the loaders; and the device that all goes to.

Used by :mod:`dbf_ray.build`, and by those who evaluate without training.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from dbf_ray.build.scored import check_learnable
from dbf_ray.config import DataConfig, TrainingConfig, at
from dbf_ray.data import Dataset, DecodedImages, EvalView, eval_loader, make_dataset, split_selection
from dbf_ray.data.loaders import MicroBatchSampler
from dbf_ray.errors import ResourceError
from dbf_ray.machine import usable_cpus
from dbf_ray.training.ddp import rank, world_size

PROBE_IMAGES = 16  # whose features tell how far a backbone has moved


@dataclass(frozen=True)
class Feeding:
    """How images reach the device.

    Attributes:
        workers: processes that prepare images; 0: the training process itself.
        prefetch: micro-batches that each of them has ready.
        pinned: whether batches are in page-locked memory.
        decoded_bytes: room for decoded and resized images.
        eval_batch: images per evaluation batch.
    """

    workers: int
    prefetch: int
    pinned: bool
    decoded_bytes: int
    eval_batch: int


def choose_device(wanted: str) -> torch.device:
    """The device to train on: "cpu", "cuda", or "auto" for cuda where there is one.

    Raises:
        ResourceError: cuda was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ResourceError("training.device is cuda, but torch sees no CUDA device; set it to cpu or auto")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def make_datasets(data: DataConfig, seed: int) -> tuple[Dataset, Dataset, str]:
    """Training set, evaluation set, and which split the latter is: "val"; "selection", where a part of train
    is held out; or "train", where the data folder has no splits and nothing is held out.

    Raises:
        DataError: they are not usable, or no training image has an object.
    """
    train_set = make_split(data, data.train_split)
    if data.selection_fraction > 0:
        with at("data", fraction="selection_fraction", fold="selection_fold"):
            kept, held = split_selection(train_set, data.selection_fraction, seed, data.selection_fold)
        check_learnable(data, kept, train_set, seed)
        return kept, held, "selection"
    check_learnable(data, train_set, train_set, seed)
    eval_set = make_split(data, data.val_split, train_set.classes)
    same = data.root is not None and getattr(train_set, "part", None) == getattr(eval_set, "part", None)
    if same:
        warnings.warn(
            f"{data.root} is not divided into train and val: the images that are trained on are evaluated "
            "on, which says little; hold some out by --data.selection_fraction 0.2",
            stacklevel=2,
        )
    return train_set, eval_set, "train" if same else "val"


@at("data")
def make_split(data: DataConfig, split: str, classes: list[str] | None = None) -> Dataset:
    """One split of the configured data set."""
    return make_dataset(
        data.name,
        split,
        root=data.root,
        classes=classes or data.classes,
        images=data.train_images if split == data.train_split else data.val_images,
        image_size=data.image_size,
        drop_empty=data.drop_empty and split == data.train_split,
        classes_from=data.train_split,
    )


@at("training")
def steps_per_epoch(train: TrainingConfig, images: int, workers: int) -> int:
    """Optimizer steps in an epoch of ``images``.

    Raises:
        ConfigError, DataError: fewer images than one effective batch, or a batch that workers and
            micro-batches cannot share.
    """
    return MicroBatchSampler(
        images,
        batch_size=train.batch_size,
        accumulation=train.accumulation,
        rank=0,
        world_size=workers,
        seed=0,
    ).steps


def feeding(data: DataConfig, eval_batch: int, device: torch.device) -> Feeding:
    """How images are fed to ``device``."""
    return Feeding(
        workers=loader_workers(data.loader_workers, device),
        prefetch=data.prefetch,
        pinned=device.type == "cuda",
        decoded_bytes=round(data.decoded_gb * 1e9),
        eval_batch=eval_batch,
    )


def loader_workers(wanted: int | None, device: torch.device) -> int:
    """Processes that prepare images: as ``wanted``, or none on a CPU, which they would share, and for a GPU
    its share of the CPUs, 8 at most.
    """
    if wanted is not None or device.type != "cuda":
        return wanted or 0
    return max(1, min(8, usable_cpus() // max(1, torch.cuda.device_count()) - 1))


def decoded_images(
    train_set: Dataset, eval_set: Dataset, size: int, budget_bytes: int
) -> tuple[DecodedImages, DecodedImages]:
    """Resized samples of the training and the evaluation set, kept within ``budget_bytes``, training images
    first.
    """
    train_images = DecodedImages(train_set, size, budget_bytes)
    return train_images, DecodedImages(eval_set, size, budget_bytes - train_images.budget_used)


def build_eval_loader(
    dataset: Dataset, size: int, feed: Feeding, resized: DecodedImages | None = None
) -> Any:
    """This rank's share of an evaluation set, its images resized to ``size`` pixels; the resized samples may
    come from elsewhere.
    """
    return eval_loader(
        EvalView(dataset, size, resized),
        batch_size=feed.eval_batch,
        rank=rank(),
        world_size=world_size(),
        workers=feed.workers,
        prefetch=feed.prefetch,
        pinned=feed.pinned,
    )


def probe_images(train_set: Dataset, size: int) -> list[torch.Tensor]:
    """Up to 16 training images, spread evenly over the set and not augmented, whose features tell how far a
    backbone has moved.
    """
    view = EvalView(train_set, size)
    count = min(PROBE_IMAGES, len(train_set))
    return [view[index * len(train_set) // count][0] for index in range(count)]
