"""How frozen stages are run: the part of building that makes the engine, the feature cache and the
micro-batches of a configuration.

Used by :mod:`dbf_ray.build`, and for what a run says of it.
"""

from __future__ import annotations

import functools
import hashlib
import math
import warnings
from collections import Counter
from pathlib import Path

import PIL
import psutil
import torch
import torchvision

from dbf_ray.config import Config
from dbf_ray.cost import FlopTable, Ledger
from dbf_ray.data import Dataset, TrainView, resized_size, signature, sizes_of
from dbf_ray.data.augment import Augmentation
from dbf_ray.data.images.decoded import slot_bytes
from dbf_ray.data.loaders import MicroBatchSampler
from dbf_ray.data.transforms import draw_orientation, orientation_size
from dbf_ray.detectors import Detector, padded_size
from dbf_ray.detectors.backbones.engine import PrefixEngine
from dbf_ray.detectors.base import SIZE_DIVISOR
from dbf_ray.errors import ConfigError, ResourceError
from dbf_ray.freezing import Horizon
from dbf_ray.freezing.cache import STORED, DiskCache, FeatureCache, RamCache
from dbf_ray.freezing.forecast import Forecast, forecast
from dbf_ray.training.ddp import rank, world_size
from dbf_ray.training.frozen import EngineOptions, FrozenPrefix
from dbf_ray.training.micro_batches import fewest
from dbf_ray.training.step_memory import StepMemory


def square(config: Config) -> int:
    """Side in pixels of the square that every image fits into after resizing and padding."""
    return math.ceil(config.data.image_size / SIZE_DIVISOR) * SIZE_DIVISOR


def augmentation(config: Config) -> Augmentation:
    """The random augmentations that are configured, none by default.

    Raises:
        ConfigError: a value is out of its range, or images would become too small or too large.
    """
    made = Augmentation(**dict(config.data.augment))
    made.long_sides(config.data.image_size)
    return made


def largest_square(config: Config) -> int:
    """Side in pixels of the square that every image fits into after augmentation and padding; beyond
    :func:`square` with scales above 1.
    """
    _, longest = augmentation(config).long_sides(config.data.image_size)
    return math.ceil(max(longest, config.data.image_size) / SIZE_DIVISOR) * SIZE_DIVISOR


def engine_is_compiled(config: Config) -> bool:
    """Whether there is an engine and ``torch.compile`` runs it."""
    wanted = (
        config.training.compile if config.freezing.engine_compile is None else config.freezing.engine_compile
    )
    return config.freezing.engine and wanted


def pads_to_square(config: Config) -> bool:
    """Whether all images are padded to the largest square: as configured, or since every shape would be
    compiled anew.
    """
    return config.data.pad_to == "square" or config.training.compile or engine_is_compiled(config)


def check_memory(config: Config, train_set: Dataset, eval_set: Dataset) -> None:
    """Refuse to keep more in memory than the machine has: features and decoded images, of all workers that
    are on this machine for sure.

    Raises:
        ResourceError: it is more.
    """
    cached = config.freezing.cache == "ram" and not augmentation(config).switched_on
    features = config.freezing.cache_gb * 1e9 if cached else 0.0
    decoded = min(
        config.data.decoded_gb * 1e9, (len(train_set) + len(eval_set)) * slot_bytes(config.data.image_size)
    )
    workers = config.cluster.workers if config.cluster.address is None and not config.cluster.gpu else 1
    total = psutil.virtual_memory().total
    if (features + decoded) * workers > total:
        raise ResourceError(
            f"what is kept in memory must be less than the machine's {total / 1e9:.1f} GB, got "
            f"{features / 1e9:.1f} GB of features "
            f"(freezing.cache_gb, cache ram) and {decoded / 1e9:.1f} GB of decoded images (data.decoded_gb) "
            f"for each of {workers} workers; "
            "lower these, or set freezing.cache disk"
        )


def cache_forecast(
    config: Config, train_set: Dataset, table: FlopTable, horizon: Horizon, prefixes: list[int] | None
) -> Forecast | None:
    """What the feature cache will do, where there is one that can hit and whole epochs have a known
    prefix.
    """
    freezing, steps = config.freezing, horizon.all_steps // config.training.epochs
    if (
        freezing.cache == "off"
        or prefixes is None
        or horizon.block_steps % steps
        or augmentation(config).switched_on
    ):
        return None
    blocks_epochs = horizon.block_steps // steps
    side, always = square(config), horizon.always_frozen
    itemsize = STORED[freezing.cache_dtype].itemsize
    return forecast(
        [prefix for prefix in prefixes for _ in range(blocks_epochs)][: config.training.epochs],
        always_frozen=always,
        images=len(train_set),
        share=steps * config.training.batch_size / len(train_set),
        orientations=1 + len(config.data.flips),
        padded_sizes=padded_size_shares(config, train_set),
        orientation_per=config.data.orientation_per,
        entry_bytes=[table.feature_numbers(side, side, n) * itemsize for n in range(horizon.num_stages + 1)],
        budget_bytes=round(freezing.cache_gb * 1e9),
        ranks=config.cluster.workers,
        shared=freezing.cache == "disk",
    )


def padded_size_shares(config: Config, train_set: Dataset, epochs: int = 3) -> list[float]:
    """Shares of the sizes that training images are padded to, in the first epochs' order and orientations;
    one if their own are not known.
    """
    sizes, data = sizes_of(train_set), config.data
    if sizes is None or pads_to_square(config):
        return [1.0]
    sampler = MicroBatchSampler(
        len(train_set),
        batch_size=config.training.batch_size,
        accumulation=1,
        rank=0,
        world_size=1,
        seed=config.seed,
    )
    found: Counter[tuple[int, int]] = Counter()
    for sampler.epoch in range(epochs):
        for batch in sampler:
            orientations = [
                draw_orientation(data.flips, config.seed, epoch, index) for epoch, index, *_ in batch
            ]
            resized = [resized_size(sizes[index], data.image_size) for _, index, *_ in batch]
            found[
                padded_size(
                    [
                        orientation_size(size, orientation)
                        for size, orientation in zip(resized, orientations, strict=True)
                    ]
                )
            ] += 1
    return [count / found.total() for count in found.values()]


def choose_micro_batches(
    config: Config, detector: Detector, table: FlopTable, prefixes: list[int] | None
) -> list[int] | None:
    """Micro-batches of a step for each frozen prefix within ``training.micro_batch_gb``; None where they stay
    as they are.

    They stay so for prefixes that a known timeline does not have, and where batch norms are trained on
    statistics of a micro-batch. What a step needs is :class:`.StepMemory`'s, at the square of
    ``data.image_size`` times the largest of ``data.augment.scales``.

    Raises:
        ResourceError: a micro-batch as it is does not fit.
    """
    train = config.training
    if train.micro_batch_gb is None:
        return None
    needed = step_memory(config, detector, table)
    images = train.batch_size // (train.accumulation * config.cluster.workers)
    stages_trained = range(table.num_stages) if config.detector.norm_eval is not True else ()
    chosen = dict.fromkeys(range(table.num_stages + 1), train.accumulation)
    for prefix in set(chosen if prefixes is None else prefixes):
        divisors = [train.accumulation] if prefix in stages_trained else range(1, train.accumulation + 1)
        chosen[prefix] = fewest(
            train.accumulation,
            images,
            divisors,
            functools.partial(needed, prefix),
            round(train.micro_batch_gb * 1e9),
        )
    return list(chosen.values())


def step_memory(config: Config, detector: Detector, table: FlopTable) -> StepMemory:
    """What a step of this configuration needs in memory."""
    train = config.training
    return StepMemory(
        detector,
        table,
        largest_square(config),
        most_images=train.batch_size // config.cluster.workers,
        kept=1 + (2 if train.optimizer == "adamw" else int(train.momentum > 0)) + int(train.ema is not None),
        engine=config.freezing.engine,
        replicated=config.cluster.workers > 1,
        low_precision=train.precision == "bf16",
    )


def build_frozen(
    config: Config,
    detector: Detector,
    ledger: Ledger,
    device: torch.device,
    view: TrainView,
    folder: Path | None,
) -> FrozenPrefix | None:
    """What runs the frozen prefix; None where the backbone does."""
    freezing, train = config.freezing, config.training
    precision = train.precision if freezing.engine_precision == "auto" else freezing.engine_precision
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    engine = EngineOptions(dtype, engine_is_compiled(config)) if freezing.engine else None
    cache = make_cache(config, view, folder)
    if engine is None and cache is None:
        return None
    run_by = "stages" if engine is None else (engine, PrefixEngine.revision)
    libraries = (
        torch.__version__,
        torchvision.__version__,
        PIL.__version__,
    )  # the last two decode and resize
    arithmetic = (libraries, device.type, run_by, train.precision, train.channels_last, freezing.cache_dtype)
    facts = (
        *arithmetic,
        config.data.name,
        config.data.image_size,
        signature(view.dataset) if cache is not None else None,
    )
    return FrozenPrefix(detector, ledger, engine, cache, facts)


def make_cache(config: Config, view: TrainView, folder: Path | None) -> FeatureCache | None:
    """This rank's shard of the feature cache; None, and a warning if one was asked for, where it could never
    hit.

    Raises:
        ConfigError: a cache on disk without a folder.
    """
    freezing, budget_bytes = config.freezing, round(config.freezing.cache_gb * 1e9)
    if freezing.cache == "off":
        return None
    if view.orientations is None:
        found = {f"data.augment.{name}": value for name, value in augmentation(config).switched_on.items()}
        options = ", ".join(f"{key} {value}" for key, value in found.items()) or type(view).__name__
        warnings.warn(
            f"freezing.cache {freezing.cache} is switched off: images are augmented in ways that have no "
            f"end ({options}), so no feature is "
            f"needed twice; to keep features leave {', '.join(found) or 'that'} out and use the "
            f"orientations of data.flips alone",
            stacklevel=3,
        )
        return None
    if freezing.cache == "ram":
        return RamCache(budget_bytes, freezing.cache_dtype)
    if folder is None:
        raise ConfigError(
            "freezing.cache disk needs a folder for this run, got none; give one, or set freezing.cache ram"
        )
    if freezing.cache_dir is not None:
        name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]
        folder = freezing.cache_dir.expanduser() / f"{folder.parent.name}-{name}"
    return DiskCache(folder, budget_bytes, freezing.cache_dtype, rank(), world_size())
