"""A checked run: everything that can be known before work starts, resolved once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch

from dbf_ray.build.data import Feeding, choose_device, feeding, make_datasets, steps_per_epoch
from dbf_ray.build.detector import build_detector, detector_options
from dbf_ray.build.frozen import (
    CacheForecaster,
    FrozenSettings,
    cache_forecaster,
    check_memory,
    frozen_settings,
)
from dbf_ray.build.images import ImageSettings, image_settings
from dbf_ray.build.scored import why_unscored
from dbf_ray.config import Config, TrainingConfig
from dbf_ray.cost import FlopTable, StepFlops, Stretch, analytic_ratio, compute_ratio, stretches
from dbf_ray.data import Dataset
from dbf_ray.detectors import Detector
from dbf_ray.freezing import Horizon, Policy, budget, make_policy
from dbf_ray.freezing.forecast import Forecast
from dbf_ray.training.scheduler import Thaw


@dataclass(frozen=True)
class RunSpec:
    """A checked run, before anything is trained. A block is an epoch, unless ``freezing.interval`` says
    otherwise.

    Attributes:
        train: how it is trained.
        seed: of weights, order, augmentation and policies.
        thaw: what happens to a stage that is trained again.
        evaluate_every: epochs from one evaluation to the next.
        data_name: what kind of data it is.
        device: that is trained on.
        images: their sizes and random changes.
        feed: how they reach the device.
        frozen: how frozen stages are run.
        detector: built and loaded, on the CPU.
        eval_split: "val"; "selection" where a part of train is held out to select on; "train" where there is
            nothing else.
        unscored: why map50 will be none or 0 whatever is trained; None: it will be a number that tells.
        horizon: number of blocks, their optimizer steps, K, seed, costs.
        frozen_prefixes: effective prefix of each block; None for policies that decide while training.
        lr_factors: factor of each stage's learning rate in each block, None for 1 everywhere; None for
            policies as above.
        table: FLOPs per image for any size and prefix; each is counted once.
        flops: nominal FLOPs per image with the first 0..K stages frozen, forward and backward.
        prefix_shares: share of the backbone's forward FLOPs in the first 0..K stages.
        backbone_share: b, the backbone's share of forward FLOPs.
        cache: says what the feature cache will do; None without one, or where blocks are not whole epochs.
    """

    train: TrainingConfig
    seed: int
    thaw: Thaw
    evaluate_every: int
    data_name: str
    device: torch.device
    images: ImageSettings
    feed: Feeding
    frozen: FrozenSettings
    train_set: Dataset
    eval_set: Dataset
    eval_split: str
    unscored: str | None
    detector: Detector
    policy: Policy
    horizon: Horizon
    frozen_prefixes: list[int] | None
    lr_factors: list[tuple[float, ...] | None] | None
    table: FlopTable
    flops: list[StepFlops]
    prefix_shares: list[float]
    backbone_share: float
    cache: CacheForecaster | None = None

    @cached_property
    def forecast(self) -> Forecast | None:
        """What the feature cache will do; None without one, or where the timeline is not known."""
        if self.cache is None or self.frozen_prefixes is None:
            return None
        epochs = self.horizon.block_steps * self.train.epochs // self.horizon.all_steps
        return self.cache([n for n in self.frozen_prefixes for _ in range(epochs)][: self.train.epochs])

    @property
    def num_stages(self) -> int:
        """K of the backbone."""
        return self.horizon.num_stages

    @property
    def always_frozen(self) -> int:
        """Leading stages that are frozen whatever the policy says."""
        return self.detector.backbone.always_frozen

    @property
    def flops_per_prefix(self) -> list[int]:
        """Nominal training FLOPs per image with the first 0..K stages frozen."""
        return [step.total for step in self.flops]

    @property
    def budget(self) -> int | None:
        """Blocks in which any part of the backbone is trained."""
        return None if self.frozen_prefixes is None else budget(self.frozen_prefixes, self.num_stages)

    @property
    def compute_ratio(self) -> float | None:
        """Nominal cost over that of policy full; None where ``frozen_prefixes`` is."""
        return None if self.frozen_prefixes is None else self.cost_of(self.frozen_prefixes, self._weights)

    @property
    def analytic_ratio(self) -> float | None:
        """What ``compute_ratio`` would be if backward = 2 x forward everywhere."""
        return (
            None
            if self.frozen_prefixes is None
            else self.analytic_cost_of(self.frozen_prefixes, self._weights)
        )

    def cost_of(self, prefixes: list[int], steps: list[int] | None = None) -> float:
        """compute_ratio of a timeline of effective prefixes, each held for as many ``steps`` (None: all
        alike).
        """
        return compute_ratio(prefixes, self.flops_per_prefix, self.always_frozen, steps)

    def analytic_cost_of(self, prefixes: list[int], steps: list[int] | None = None) -> float:
        """The same by the rule backward = 2 x forward."""
        return analytic_ratio(prefixes, self.backbone_share, self.prefix_shares, self.always_frozen, steps)

    @property
    def stretches(self) -> list[Stretch]:
        """What the timeline comes to; of a policy that decides while it trains as if it never froze."""
        if self.frozen_prefixes is None:
            return [Stretch(self.always_frozen, self.horizon.all_steps)]
        return stretches(self.frozen_prefixes, self._weights, self.hits)

    @property
    def hits(self) -> Callable[[int, int], float]:
        """Of a prefix and so many steps in a row with it, the expected share of images whose frozen features
        come from the cache; 0 where that is not known.
        """
        return partial(_expected_hits, self.cache, self.horizon.all_steps // self.train.epochs)

    @property
    def _weights(self) -> list[int]:
        return [self.horizon.steps(block) for block in range(self.horizon.epochs)]


def prepare(config: Config, table: FlopTable | None = None) -> RunSpec:
    """Check a run and make what it trains.

    Args:
        config: the run.
        table: FLOPs of a detector of the same shapes; None: they are counted.

    Raises:
        DbfRayError: anything in the configuration, data or weights that cannot work.
    """
    freezing, train = config.freezing, config.training
    policy = make_policy(freezing.policy, **freezing.parameters)
    options = detector_options(config.detector)
    frozen = frozen_settings(freezing, train)
    images = image_settings(config.data, compiled=train.compile or frozen.compiled)
    device = choose_device(train.device)
    warn_of_emulation(train.precision, frozen, device)
    feed = feeding(config.data, config.evaluation.batch_size, device)
    train_set, eval_set, eval_split = make_datasets(config.data, config.seed)
    steps = steps_per_epoch(train, len(train_set), config.cluster.workers)
    detector = build_detector(
        config.detector, options, train_set.classes, seed=config.seed, least_pad_to=images.least_pad_to
    )
    table = table or FlopTable(detector)
    flops = [table.step(images.square, images.square, n) for n in range(table.num_stages + 1)]
    horizon = blocks(config, steps, [step.total for step in flops], detector.backbone.always_frozen)
    policy.check(horizon)
    if "map50" in policy.needs_signals and config.evaluation.every > 1:
        warnings.warn(
            f"policy {policy.name} hears of map50 only where it is evaluated, every "
            f"{config.evaluation.every} epochs; set evaluation.every 1",
            stacklevel=2,
        )
    prefixes = factors = None
    if not policy.needs_signals:
        decided = policy.timeline(horizon)
        prefixes = [max(decision.num_frozen, detector.backbone.always_frozen) for decision in decided]
        factors = [decision.lr_factors for decision in decided]
    here = config.cluster.address is None and not config.cluster.gpu
    check_memory(
        frozen,
        images,
        decoded_bytes=feed.decoded_bytes,
        kept_images=len(train_set) + len(eval_set),
        workers=config.cluster.workers if here else 1,
    )
    return RunSpec(
        train=train,
        seed=config.seed,
        thaw=Thaw(freezing.momentum, freezing.rewarm_steps, freezing.rewarm_after, train.warmup_factor),
        evaluate_every=config.evaluation.every,
        data_name=config.data.name,
        device=device,
        images=images,
        feed=feed,
        frozen=frozen,
        train_set=train_set,
        eval_set=eval_set,
        eval_split=eval_split,
        unscored=why_unscored(config.data, train_set, eval_set, eval_split),
        detector=detector,
        policy=policy,
        horizon=horizon,
        frozen_prefixes=prefixes,
        lr_factors=factors,
        table=table,
        flops=flops,
        prefix_shares=table.prefix_shares(images.square, images.square),
        backbone_share=table.backbone_share(images.square, images.square),
        cache=cache_forecaster(
            frozen,
            images,
            train_set,
            table,
            horizon,
            epochs=train.epochs,
            batch_size=train.batch_size,
            workers=config.cluster.workers,
        ),
    )


def _expected_hits(cache: CacheForecaster | None, steps_per_epoch: int, prefix: int, steps: int) -> float:
    epochs, rest = divmod(steps, steps_per_epoch)
    return 0.0 if cache is None or rest or not prefix else cache([prefix] * epochs).hit_rate


def blocks(config: Config, steps: int, flops_per_prefix: list[int], always_frozen: int) -> Horizon:
    """The blocks of a run of ``steps`` optimizer steps an epoch, by ``freezing.interval``."""
    interval = config.freezing.interval
    length = interval.every * (steps if interval.unit == "epochs" else 1)
    total = steps * config.training.epochs
    length = min(length, total)
    stages = len(flops_per_prefix) - 1
    return Horizon(
        math.ceil(total / length),
        stages,
        config.seed,
        costs=tuple(flops_per_prefix),
        block_steps=length,
        total_steps=total,
        always_frozen=always_frozen,
    )


def warn_of_emulation(precision: str, frozen: FrozenSettings, device: torch.device) -> None:
    """Say so where bf16 is slower than float32: on x86 processors without AVX-512, which have no arithmetic
    for it.
    """
    if precision == "bf16":
        key = "training.precision"
    elif frozen.engine is not None and frozen.engine.dtype == torch.bfloat16:
        key = "freezing.engine_precision"
    else:
        return
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        warnings.warn(
            f"{key} is bf16, which this processor has to emulate, several times slower than float32; set "
            f"{key} float32",
            stacklevel=3,
        )
