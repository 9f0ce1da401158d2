"""A checked run: everything that can be known before work starts, resolved once."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch

from dbf_ray.build.data import (
    choose_device,
    make_datasets,
    steps_per_epoch,
)
from dbf_ray.build.detector import build_detector, detector_options
from dbf_ray.build.frozen import (
    augmentation,
    cache_forecast,
    check_memory,
    choose_micro_batches,
    square,
)
from dbf_ray.config import Config
from dbf_ray.cost import FlopTable, StepFlops, analytic_ratio, compute_ratio
from dbf_ray.data import (
    Dataset,
)
from dbf_ray.detectors import Detector
from dbf_ray.freezing import Policy, budget, make_policy
from dbf_ray.freezing import Progress as PolicyProgress
from dbf_ray.freezing.forecast import Forecast


@dataclass(frozen=True)
class RunSpec:
    """A checked run, before anything is trained. A block is an epoch, unless ``freezing.interval`` says
    otherwise.

    Attributes:
        detector: built and loaded, on the CPU.
        eval_split: "val"; "selection" where a part of train is held out to select on; "train" where there is
            nothing else.
        run: the policy's progress at block 0: number of blocks, their optimizer steps, K, costs.
        frozen_prefixes: effective prefix of each block; None for policies that decide while training.
        lr_factors: factor of each stage's learning rate in each block, None for 1 everywhere; None for
            policies as above.
        table: FLOPs per image for any size and prefix; each is counted once.
        flops: nominal FLOPs per image with the first 0..K stages frozen, forward and backward.
        prefix_shares: share of the backbone's forward FLOPs in the first 0..K stages.
        backbone_share: b, the backbone's share of forward FLOPs.
        forecast: what the feature cache will do; None without one, or where the timeline is not known.
        micro_batches: of each rank in a step, for each frozen prefix; None: always ``training.accumulation``.
    """

    config: Config
    train_set: Dataset
    eval_set: Dataset
    eval_split: str
    detector: Detector
    policy: Policy
    run: PolicyProgress
    frozen_prefixes: list[int] | None
    lr_factors: list[tuple[float, ...] | None] | None
    table: FlopTable
    flops: list[StepFlops]
    prefix_shares: list[float]
    backbone_share: float
    forecast: Forecast | None = None
    micro_batches: list[int] | None = None

    @property
    def num_stages(self) -> int:
        """K of the backbone."""
        return self.run.num_stages

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
    def _weights(self) -> list[int]:
        return [self.run.steps(block) for block in range(self.run.epochs)]


def prepare(config: Config, table: FlopTable | None = None) -> RunSpec:
    """Check a run and make what it trains.

    Args:
        config: the run.
        table: FLOPs of a detector of the same shapes; None: they are counted.

    Raises:
        DbfRayError: anything in the configuration, data or weights that cannot work.
    """
    policy = make_policy(config.freezing.policy, **config.freezing.parameters)
    detector_options(config)
    augmentation(config)
    warn_of_emulation(config, choose_device(config))
    train_set, eval_set, eval_split = make_datasets(config)
    steps = steps_per_epoch(config, len(train_set))
    detector = build_detector(config, train_set.classes)
    size = square(config)
    table = table or FlopTable(detector)
    flops = [table.step(size, size, n) for n in range(table.num_stages + 1)]
    run = blocks(config, steps, [step.total for step in flops], detector.backbone.always_frozen)
    policy.check(run)
    if "map50" in policy.needs_signals and config.evaluation.every > 1:
        warnings.warn(
            f"policy {policy.name} hears of map50 only where it is evaluated, every "
            f"{config.evaluation.every} epochs; set evaluation.every 1",
            stacklevel=2,
        )
    prefixes = factors = None
    if not policy.needs_signals:
        decided = policy.timeline(run)
        prefixes = [max(decision.num_frozen, detector.backbone.always_frozen) for decision in decided]
        factors = [decision.lr_factors for decision in decided]
    shares, share = table.prefix_shares(size, size), table.backbone_share(size, size)
    check_memory(config, train_set, eval_set)
    return RunSpec(
        *(
            config,
            train_set,
            eval_set,
            eval_split,
            detector,
            policy,
            run,
            prefixes,
            factors,
            table,
            flops,
            shares,
            share,
        ),
        forecast=cache_forecast(config, train_set, table, run, prefixes),
        micro_batches=choose_micro_batches(config, detector, table, prefixes),
    )


def blocks(config: Config, steps: int, flops_per_prefix: list[int], always_frozen: int) -> PolicyProgress:
    """A policy's progress at block 0 of a run of ``steps`` optimizer steps an epoch, by
    ``freezing.interval``.
    """
    interval = config.freezing.interval
    length = interval.every * (steps if interval.unit == "epochs" else 1)
    total = steps * config.training.epochs
    length = min(length, total)
    stages = len(flops_per_prefix) - 1
    return PolicyProgress(
        0,
        math.ceil(total / length),
        stages,
        config.seed,
        tuple(flops_per_prefix),
        length,
        total,
        always_frozen,
    )


def warn_of_emulation(config: Config, device: torch.device) -> None:
    """Say so where bf16 is slower than float32: on x86 processors without AVX-512, which have no arithmetic
    for it.
    """
    frozen = config.freezing.engine and config.freezing.engine_precision == "bf16"
    key = (
        "training.precision"
        if config.training.precision == "bf16"
        else "freezing.engine_precision"
        if frozen
        else None
    )
    if (
        key is not None
        and device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    ):
        warnings.warn(
            f"{key} is bf16, which this processor has to emulate, several times slower than float32; set "
            f"{key} float32",
            stacklevel=3,
        )
