"""Batches: one global order of images an epoch, cut so that every world size and accumulation sees the same
effective batches.

The epoch travels with each index to the processes that load images, so these may live through the whole
training and hold no state.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from dbf_ray.data.samples import Sample, Target
from dbf_ray.data.seeds import ORDER, Stream
from dbf_ray.data.transforms import EvalView, TrainView
from dbf_ray.errors import ConfigError, DataError, DbfRayError

Batch = tuple[list[torch.Tensor], list[Target]]
OrientationPer = Literal["epoch", "span"]


@dataclass(frozen=True)
class Feed:
    """How batches are made ready: by how many processes (0: this one), how many each has ready, and whether
    in page-locked memory.
    """

    workers: int = 0
    prefetch: int = 2
    pinned: bool = False


class MicroBatchSampler(Sampler[list[tuple[int, ...]]]):
    """Yields one rank's micro-batches of an epoch, lists of (epoch, index); ``accumulation`` of them in a row
    make one step.

    With ``orientations`` set, keys are (epoch, index, orientations): the orientations are those of another
    epoch.

    Step s uses positions [s B, (s + 1) B) of the epoch's global order (B = batch_size), which depends on
    (seed, epoch) only. Micro-batch m on rank r of W with accumulation A takes positions s B + m B/A + r B/(A
    W) + [0, B/(A W)). The last incomplete effective batch is dropped.
    """

    def __init__(
        self, images: int, *, batch_size: int, accumulation: int, rank: int, world_size: int, seed: int
    ) -> None:
        if min(batch_size, accumulation, world_size) < 1 or batch_size % (accumulation * world_size):
            raise ConfigError(
                f"`batch_size` must be divisible by workers x accumulation = {world_size} x {accumulation}, "
                f"got {batch_size}; change one"
            )
        if not 0 <= rank < world_size:
            raise ConfigError(f"a rank must be in 0..{world_size - 1}, got {rank}")
        if images < batch_size:
            raise DataError(
                f"the training set must hold at least one effective batch of {batch_size} images, got "
                f"{images}; add images, lower `batch_size`, or hold fewer out"
            )
        self.images, self.batch_size, self.accumulation = images, batch_size, accumulation
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.epoch = 0
        self.orientations: int | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return self.images // self.batch_size

    def __len__(self) -> int:
        return self.steps * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        epoch, orientations = self.epoch, () if self.orientations is None else (self.orientations,)
        order = Stream(ORDER, self.seed, epoch).permutation(self.images)
        micro = self.batch_size // (self.accumulation * self.world_size)
        for batch in range(len(self)):
            start = (batch * self.world_size + self.rank) * micro
            yield [(epoch, index, *orientations) for index in order[start : start + micro]]


class TrainLoader:
    """One rank's training batches, epoch by epoch."""

    def __init__(
        self,
        view: TrainView,
        sampler: MicroBatchSampler,
        feed: Feed,
        orientation_per: OrientationPer = "epoch",
    ) -> None:
        self._sampler, self._orientation_per = sampler, orientation_per
        self._loader = _make_loader(view, sampler, feed)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch, the same on every rank."""
        return self._sampler.steps

    def epoch(self, epoch: int, orientations: int | None = None) -> Iterator[Batch]:
        """Micro-batches (images, targets) of a 0-based epoch; use one epoch's iterator at a time.

        Args:
            epoch: which.
            orientations: with ``orientation_per`` "span" the epoch whose orientations are shown; None: its
                own.

        Raises:
            DataError: while iterating, an image cannot be decoded.
        """
        self._sampler.epoch, self._sampler.orientations = (
            epoch,
            orientations if self._orientation_per == "span" else None,
        )
        return _checked(iter(self._loader))


class EvalLoader:
    """One rank's share of the images for evaluation, as batches; may be iterated any number of times."""

    def __init__(self, view: EvalView, sampler: ShardSampler, feed: Feed) -> None:
        self._loader = _make_loader(view, sampler, feed)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        return _checked(iter(self._loader))


def train_loader(
    dataset_view: TrainView,
    *,
    batch_size: int,
    accumulation: int = 1,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    workers: int = 0,
    prefetch: int = 2,
    pinned: bool = False,
    orientation_per: OrientationPer = "epoch",
) -> TrainLoader:
    """Make one rank's training loader.

    Args:
        dataset_view: samples addressed by (epoch, index).
        batch_size: the effective batch, images in one optimizer step over all ranks and micro-batches.
        accumulation: micro-batches per optimizer step.
        rank: this process among ``world_size``.
        world_size: number of ranks.
        seed: of the order of the images.
        workers: processes that load images, kept through all epochs; 0: this process does.
        prefetch: micro-batches that each of them has ready.
        pinned: batches lie in page-locked memory, for a GPU.
        orientation_per: "epoch": an image's orientation is drawn in each epoch; "span": it is that of the
            epoch which :meth:`TrainLoader.epoch` is told.

    Raises:
        ConfigError: batch_size is not divisible by accumulation x world_size.
        DataError: there are fewer images than one effective batch.
    """
    sampler = MicroBatchSampler(
        len(dataset_view),
        batch_size=batch_size,
        accumulation=accumulation,
        rank=rank,
        world_size=world_size,
        seed=seed,
    )
    return TrainLoader(dataset_view, sampler, Feed(workers, prefetch, pinned), orientation_per)


class ShardSampler(Sampler[list[int]]):
    """Batches of every ``world_size``-th index from ``rank``: all images once over all ranks, none twice."""

    def __init__(self, images: int, *, batch_size: int, rank: int, world_size: int) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ConfigError(
                f"evaluation needs a batch size >= 1 and a rank in 0..{world_size - 1}, got {batch_size} and "
                f"{rank}"
            )
        self.indices, self.batch_size = range(rank, images, world_size), batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield list(self.indices[start : start + self.batch_size])


def eval_loader(
    view: EvalView,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    prefetch: int = 2,
    pinned: bool = False,
) -> EvalLoader:
    """One rank's share of all images, in order, as batches (images, targets); arguments as in
    :func:`train_loader`.
    """
    return EvalLoader(
        view,
        ShardSampler(len(view), batch_size=batch_size, rank=rank, world_size=world_size),
        Feed(workers, prefetch, pinned),
    )


class _Guarded:
    """A view that returns its errors: raised in a loading process, they would come back buried in a
    traceback.
    """

    def __init__(self, view: TrainView | EvalView) -> None:
        self.view = view

    def __getitem__(self, key: Any) -> Sample | DbfRayError:
        try:
            return self.view[key]
        except DbfRayError as error:
            return error


def collate(samples: Sequence[Sample | DbfRayError]) -> Batch | DbfRayError:
    """Lists of images and targets; images keep their own sizes. The first error stands for the whole
    batch.
    """
    images, targets = [], []
    for sample in samples:
        if isinstance(sample, DbfRayError):
            return sample
        images.append(sample[0])
        targets.append(sample[1])
    return images, targets


def _checked(batches: Iterator[Batch | DbfRayError]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, DbfRayError):
            raise batch
        yield batch


def _make_loader(
    view: TrainView | EvalView, sampler: MicroBatchSampler | ShardSampler, feed: Feed
) -> DataLoader[Any]:
    # A generator of its own: the loader would otherwise draw from torch's global one at every epoch and so
    # change what follows.
    return DataLoader(
        cast("TorchDataset[Any]", _Guarded(view)),
        batch_sampler=sampler,
        num_workers=feed.workers,
        prefetch_factor=feed.prefetch if feed.workers else None,
        pin_memory=feed.pinned,
        collate_fn=collate,
        persistent_workers=feed.workers > 0,
        multiprocessing_context="fork"
        if feed.workers and sys.platform == "linux"
        else None,  # shares decoded images
        generator=torch.Generator().manual_seed(0),
    )
