"""Data of a configuration: its data sets, what is kept of them in memory, and the loaders; and the device
that all goes to.

Used by :mod:`dbf_ray.build`, and by those who evaluate without training.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch

from dbf_ray.config import Config
from dbf_ray.data import Dataset, DecodedImages, EvalView, eval_loader, make_dataset, split_selection
from dbf_ray.data.loaders import MicroBatchSampler
from dbf_ray.errors import ResourceError
from dbf_ray.machine import usable_cpus
from dbf_ray.training.ddp import rank, world_size

PROBE_IMAGES = 16  # whose features tell how far a backbone has moved


def choose_device(config: Config) -> torch.device:
    """The device to train on.

    Raises:
        ResourceError: cuda was asked for and there is none.
    """
    wanted = config.training.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ResourceError("training.device is cuda, but torch sees no CUDA device; set it to cpu or auto")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def make_datasets(config: Config) -> tuple[Dataset, Dataset, str]:
    """Training set, evaluation set, and which split the latter is: "val"; "selection", where a part of train
    is held out; or "train", where the data folder has no splits and nothing is held out.
    """
    train_set = make_split(config, config.data.train_split)
    if config.data.selection_fraction > 0:
        kept, held = split_selection(
            train_set, config.data.selection_fraction, config.seed, config.data.selection_fold
        )
        return kept, held, "selection"
    eval_set = make_split(config, config.data.val_split, train_set.classes)
    same = config.data.root is not None and getattr(train_set, "part", None) == getattr(
        eval_set, "part", None
    )
    if same:
        warnings.warn(
            f"{config.data.root} is not divided into train and val: the images that are trained on are "
            f"evaluated on, which says little; "
            "hold some out by --data.selection_fraction 0.2",
            stacklevel=2,
        )
    return train_set, eval_set, "train" if same else "val"


def make_split(config: Config, split: str, classes: list[str] | None = None) -> Dataset:
    """One split of the configured data set."""
    data = config.data
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


def steps_per_epoch(config: Config, images: int) -> int:
    """Optimizer steps in an epoch of ``images``.

    Raises:
        ConfigError, DataError: fewer images than one effective batch, or a batch that workers and
            micro-batches cannot share.
    """
    train = config.training
    return MicroBatchSampler(
        images,
        batch_size=train.batch_size,
        accumulation=train.accumulation,
        rank=0,
        world_size=config.cluster.workers,
        seed=0,
    ).steps


def decoded_images(
    config: Config, train_set: Dataset, eval_set: Dataset
) -> tuple[DecodedImages, DecodedImages]:
    """Resized samples of the training and the evaluation set, kept within ``data.decoded_gb``, training
    images first.
    """
    size, budget_bytes = config.data.image_size, round(config.data.decoded_gb * 1e9)
    train_images = DecodedImages(train_set, size, budget_bytes)
    return train_images, DecodedImages(eval_set, size, budget_bytes - train_images.budget_used)


def loader_workers(config: Config, device: torch.device) -> int:
    """Processes that prepare images: as configured, or none on a CPU, which they would share, and for a GPU
    its share of the CPUs, 8 at most.
    """
    if config.data.loader_workers is not None or device.type != "cuda":
        return config.data.loader_workers or 0
    return max(1, min(8, usable_cpus() // max(1, torch.cuda.device_count()) - 1))


def build_eval_loader(config: Config, dataset: Dataset, resized: DecodedImages | None = None) -> Any:
    """This rank's share of an evaluation set, whose resized samples may come from elsewhere."""
    device = choose_device(config)
    return eval_loader(
        EvalView(dataset, config.data.image_size, resized),
        batch_size=config.evaluation.batch_size,
        rank=rank(),
        world_size=world_size(),
        workers=loader_workers(config, device),
        prefetch=config.data.prefetch,
        pinned=device.type == "cuda",
    )


def probe_images(config: Config, train_set: Dataset) -> list[torch.Tensor]:
    """Up to 16 training images, spread evenly over the set and not augmented, whose features tell how far a
    backbone has moved.
    """
    view = EvalView(train_set, config.data.image_size)
    count = min(PROBE_IMAGES, len(train_set))
    return [view[index * len(train_set) // count][0] for index in range(count)]
