"""How frozen stages are run: the part of building that makes the engine and the feature cache of a
configuration.

Used by :mod:`dbf_ray.build`, and for what a run says of it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import PIL
import psutil
import torch
import torchvision

from dbf_ray.build.images import ImageSettings
from dbf_ray.config import FreezingConfig, TrainingConfig
from dbf_ray.cost import FlopTable, Ledger
from dbf_ray.data import Dataset, TrainView, resized_size, signature, sizes_of
from dbf_ray.data.images.decoded import slot_bytes
from dbf_ray.data.loaders import MicroBatchSampler
from dbf_ray.data.transforms import draw_orientation, orientation_size
from dbf_ray.detectors import Detector, padded_size
from dbf_ray.detectors.backbones.engine import PrefixEngine
from dbf_ray.errors import ConfigError, ResourceError
from dbf_ray.freezing import Horizon
from dbf_ray.freezing.cache import STORED, DiskCache, FeatureCache, RamCache
from dbf_ray.freezing.forecast import Forecast, forecast
from dbf_ray.training.ddp import rank, world_size
from dbf_ray.training.frozen import EngineOptions, FrozenPrefix


@dataclass(frozen=True)
class FrozenSettings:
    """What runs frozen stages, and how they are rounded.

    Attributes:
        engine: None: they run as they are.
        cache: "off", "ram" or "disk".
        cache_dtype: how features are stored.
        cache_bytes: room for them, of each worker.
        cache_dir: folder of a cache on disk; None: in the run's folder.
        precision: of the training, "float32" or "bf16".
        channels_last: whether the detector is in this memory format.
    """

    engine: EngineOptions | None
    cache: str
    cache_dtype: str
    cache_bytes: int
    cache_dir: Path | None
    precision: str
    channels_last: bool

    @property
    def compiled(self) -> bool:
        """Whether there is an engine and ``torch.compile`` runs it."""
        return self.engine is not None and self.engine.compiled


def frozen_settings(freezing: FreezingConfig, train: TrainingConfig) -> FrozenSettings:
    """What is configured, with what freezing takes from training where it says nothing itself."""
    precision = train.precision if freezing.engine_precision == "auto" else freezing.engine_precision
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    compiled = train.compile if freezing.engine_compile is None else freezing.engine_compile
    return FrozenSettings(
        engine=EngineOptions(dtype, compiled) if freezing.engine else None,
        cache=freezing.cache,
        cache_dtype=freezing.cache_dtype,
        cache_bytes=round(freezing.cache_gb * 1e9),
        cache_dir=freezing.cache_dir,
        precision=train.precision,
        channels_last=train.channels_last,
    )


def check_memory(
    frozen: FrozenSettings, images: ImageSettings, *, decoded_bytes: int, kept_images: int, workers: int
) -> None:
    """Refuse to keep more in memory than the machine has: features and decoded images, of ``workers`` that
    are on this machine for sure.

    Args:
        frozen: how frozen stages are run.
        images: what is fed.
        decoded_bytes: room for decoded images, of which there are ``kept_images`` at most.
        kept_images: of the training and the evaluation set.
        workers: on this machine.

    Raises:
        ResourceError: it is more.
    """
    cached = frozen.cache == "ram" and not images.augmentation.switched_on
    features = frozen.cache_bytes if cached else 0
    decoded = min(decoded_bytes, kept_images * slot_bytes(images.size))
    total = psutil.virtual_memory().total
    if (features + decoded) * workers > total:
        raise ResourceError(
            f"what is kept in memory must be less than the machine's {total / 1e9:.1f} GB, got "
            f"{features / 1e9:.1f} GB of features (freezing.cache_gb, cache ram) and {decoded / 1e9:.1f} GB "
            f"of decoded images (data.decoded_gb) for each of {workers} workers; lower these, or set "
            "freezing.cache disk"
        )


CacheForecaster = Callable[[Sequence[int]], Forecast]
"""Of the effective frozen prefix of each epoch, or of some in a row, to what the feature cache will do."""


def cache_forecaster(
    frozen: FrozenSettings,
    images: ImageSettings,
    train_set: Dataset,
    table: FlopTable,
    horizon: Horizon,
    *,
    epochs: int,
    batch_size: int,
    workers: int,
) -> CacheForecaster | None:
    """What says what the feature cache will do, where there is one that can hit and a prefix holds for whole
    epochs.
    """
    steps = horizon.all_steps // epochs
    if frozen.cache == "off" or horizon.block_steps % steps or images.augmentation.switched_on:
        return None
    side, always = images.square, horizon.always_frozen
    itemsize = STORED[frozen.cache_dtype].itemsize
    return partial(
        forecast,
        always_frozen=always,
        images=len(train_set),
        share=steps * batch_size / len(train_set),
        orientations=1 + len(images.flips),
        padded_sizes=padded_size_shares(train_set, images, batch_size, horizon.seed),
        orientation_per=images.orientation_per,
        entry_bytes=[table.feature_numbers(side, side, n) * itemsize for n in range(horizon.num_stages + 1)],
        budget_bytes=frozen.cache_bytes,
        ranks=workers,
        shared=frozen.cache == "disk",
    )


def padded_size_shares(
    train_set: Dataset, images: ImageSettings, batch_size: int, seed: int, epochs: int = 3
) -> list[float]:
    """Shares of the sizes that training images are padded to, in the first epochs' order and orientations;
    one if their own are not known.
    """
    sizes = sizes_of(train_set)
    if sizes is None or images.padded:
        return [1.0]
    sampler = MicroBatchSampler(
        len(train_set), batch_size=batch_size, accumulation=1, rank=0, world_size=1, seed=seed
    )
    found: Counter[tuple[int, int]] = Counter()
    for sampler.epoch in range(epochs):
        for batch in sampler:
            oriented = [
                orientation_size(
                    resized_size(sizes[index], images.size),
                    draw_orientation(images.flips, seed, epoch, index),
                )
                for epoch, index, *_ in batch
            ]
            found[padded_size(oriented)] += 1
    return [count / found.total() for count in found.values()]


def build_frozen(
    frozen: FrozenSettings,
    detector: Detector,
    ledger: Ledger,
    view: TrainView,
    *,
    device: torch.device,
    data_name: str,
    folder: Path | None,
) -> FrozenPrefix | None:
    """What runs the frozen prefix; None where the backbone does."""
    engine, cache = frozen.engine, make_cache(frozen, view, folder)
    if engine is None and cache is None:
        return None
    run_by = "stages" if engine is None else (engine, PrefixEngine.revision)
    # the last two decode and resize
    libraries = (torch.__version__, torchvision.__version__, PIL.__version__)
    facts = (
        *(libraries, device.type, run_by, frozen.precision, frozen.channels_last, frozen.cache_dtype),
        *(data_name, view.image_size),
        signature(view.dataset) if cache is not None else None,
    )
    return FrozenPrefix(detector, ledger, engine, cache, facts)


def make_cache(frozen: FrozenSettings, view: TrainView, folder: Path | None) -> FeatureCache | None:
    """This rank's shard of the feature cache; None, and a warning if one was asked for, where it could never
    hit.

    Raises:
        ConfigError: a cache on disk without a folder.
    """
    if frozen.cache == "off":
        return None
    if view.orientations is None:
        changes = {} if view.augmentation is None else view.augmentation.switched_on
        found = {f"data.augment.{name}": value for name, value in changes.items()}
        options = ", ".join(f"{key} {value}" for key, value in found.items()) or type(view).__name__
        warnings.warn(
            f"freezing.cache {frozen.cache} is switched off: images are augmented in ways that have no end "
            f"({options}), so no feature is needed twice; to keep features leave "
            f"{', '.join(found) or 'that'} out and use the orientations of data.flips alone",
            stacklevel=3,
        )
        return None
    if frozen.cache == "ram":
        return RamCache(frozen.cache_bytes, frozen.cache_dtype)
    if folder is None:
        raise ConfigError(
            "freezing.cache disk needs a folder for this run, got none; give one, or set freezing.cache ram"
        )
    if frozen.cache_dir is not None:
        name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]
        folder = frozen.cache_dir.expanduser() / f"{folder.parent.name}-{name}"
    return DiskCache(folder, frozen.cache_bytes, frozen.cache_dtype, rank(), world_size())
