"""The one place where configuration becomes objects.

:func:`prepare` checks everything that can be known before work starts and says what the run will cost;
:func:`build_training` makes the parts that train.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from dbf_ray.build_data import (
    build_eval_loader,
    choose_device,
    decoded_images,
    loader_workers,
    make_datasets,
    probe_images,
    steps_per_epoch,
)
from dbf_ray.build_frozen import (
    augmentation,
    build_frozen,
    cache_forecast,
    check_memory,
    choose_micro_batches,
    engine_is_compiled,
    has_one_canvas,
    largest_square,
    square,
)
from dbf_ray.config import Config
from dbf_ray.cost import FlopTable, Ledger, StepFlops, analytic_ratio, compute_ratio
from dbf_ray.data import (
    Dataset,
    TrainView,
    originals_of,
    train_loader,
)
from dbf_ray.detectors import DETECTORS, Detector, check_options, make_detector, with_defaults
from dbf_ray.detectors.compiled import check_compiler
from dbf_ray.detectors.mmrotate import load_mmrotate_checkpoint
from dbf_ray.detectors.options import check_ranges
from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Freezer, Policy, budget, make_policy, stage_parameters
from dbf_ray.freezing import Progress as PolicyProgress
from dbf_ray.freezing.forecast import Forecast
from dbf_ray.training.average import WeightAverage
from dbf_ray.training.ddp import Replicas, broadcast_object, gather_objects, rank, world_size
from dbf_ray.training.loop import Training
from dbf_ray.training.optim import LearningRate, make_optimizer, parameter_groups
from dbf_ray.training.progress import Progress
from dbf_ray.training.scheduler import FreezingScheduler, Thaw
from dbf_ray.training.signals import SIGNALS, Sources


@dataclass(frozen=True)
class Plan:
    """A checked run, before anything is trained. A block is an epoch, unless ``freezing.interval`` says otherwise.

    Attributes:
        detector: built and loaded, on the CPU.
        eval_split: "val"; "selection" where a part of train is held out to select on; "train" where there is nothing else.
        run: the policy's progress at block 0: number of blocks, their optimizer steps, K, costs.
        frozen_prefixes: effective prefix of each block; None for policies that decide while training.
        lr_factors: factor of each stage's learning rate in each block, None for 1 everywhere; None for policies as above.
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
        return self.detector.backbone.frozen_stages

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
        return None if self.frozen_prefixes is None else self.analytic_cost_of(self.frozen_prefixes, self._weights)

    def cost_of(self, prefixes: list[int], steps: list[int] | None = None) -> float:
        """compute_ratio of a timeline of effective prefixes, each held for as many ``steps`` (None: all alike)."""
        return compute_ratio(prefixes, self.flops_per_prefix, self.always_frozen, steps)

    def analytic_cost_of(self, prefixes: list[int], steps: list[int] | None = None) -> float:
        """The same by the rule backward = 2 x forward."""
        return analytic_ratio(prefixes, self.backbone_share, self.prefix_shares, self.always_frozen, steps)

    @property
    def _weights(self) -> list[int]:
        return [self.run.steps(block) for block in range(self.run.epochs)]


def prepare(config: Config) -> Plan:
    """Check a run and make what it trains.

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
    table = FlopTable(detector)
    flops = [table.step(size, size, n) for n in range(table.num_stages + 1)]
    run = blocks(config, steps, [step.total for step in flops], detector.backbone.frozen_stages)
    policy.check(run)
    if "map50" in policy.needs_signals and config.evaluation.every > 1:
        warnings.warn(
            f"policy {policy.name} hears of map50 only where it is evaluated, every {config.evaluation.every} epochs; set evaluation.every 1",
            stacklevel=2,
        )
    prefixes = factors = None
    if not policy.needs_signals:
        decided = policy.timeline(run)
        prefixes = [max(decision.frozen_stages, detector.backbone.frozen_stages) for decision in decided]
        factors = [decision.lr_factors for decision in decided]
    shares, share = table.prefix_shares(size, size), table.backbone_share(size, size)
    check_memory(config, train_set, eval_set)
    return Plan(
        *(config, train_set, eval_set, eval_split, detector, policy, run, prefixes, factors, table, flops, shares, share),
        forecast=cache_forecast(config, train_set, table, run, prefixes),
        micro_batches=choose_micro_batches(config, detector, table, prefixes),
    )


def blocks(config: Config, steps: int, flops_per_prefix: list[int], always_frozen: int) -> PolicyProgress:
    """A policy's progress at block 0 of a run of ``steps`` optimizer steps an epoch, by ``freezing.interval``."""
    interval = config.freezing.interval
    length = interval.every * (steps if interval.unit == "epochs" else 1)
    total = steps * config.training.epochs
    length = min(length, total)
    stages = len(flops_per_prefix) - 1
    return PolicyProgress(0, math.ceil(total / length), stages, config.seed, tuple(flops_per_prefix), length, total, always_frozen)


def detector_options(config: Config) -> dict[str, Any]:
    """The detector's own options, each of the type that the detector declares.

    Raises:
        ConfigError: unknown detector or option, or a value of another type.
    """
    name, options = config.detector.name, config.detector.parameters
    check_options(name, options)
    hints = get_type_hints(DETECTORS[name].__init__)
    for option, value in options.items():
        try:
            options[option] = TypeAdapter(hints[option]).validate_python(value)
        except ValidationError as error:
            item = error.errors()[0]
            is_list = item["type"] in ("sequence_str", "is_instance_of")
            rule = "should be a list, written [a, b]" if is_list else item["msg"].removeprefix("Input ")
            raise ConfigError(f"detector.{option} of {name}: {rule}, got {value!r}; correct it") from error
    check_ranges(with_defaults(name, options))
    return options


def build_detector(config: Config, classes: list[str]) -> Detector:
    """The detector with seeded random and pretrained weights; not compiled, but padding as it would be where ``training.compile`` is set."""
    detector = config.detector
    torch.manual_seed(config.seed)
    built = make_detector(
        detector.name,
        backbone=detector.backbone,
        num_classes=len(classes),
        weights_backbone=detector.weights_backbone,
        fpn_channels=detector.fpn_channels,
        head_convs=detector.head_convs,
        norm_eval=detector.norm_eval,
        frozen_stages=detector.frozen_stages,
        **detector_options(config),
    )
    if has_one_canvas(config):
        built.least_canvas = (largest_square(config), largest_square(config))
    if detector.weights_mmrotate is not None:
        placement = load_mmrotate_checkpoint(built, Path(detector.weights_mmrotate).expanduser())
        if placement.unplaced or placement.missing:
            warnings.warn(f"{detector.weights_mmrotate}: {placement}", stacklevel=2)
    return built


def warn_of_emulation(config: Config, device: torch.device) -> None:
    """Say so where bf16 is slower than float32: on x86 processors without AVX-512, which have no arithmetic for it."""
    frozen = config.freezing.engine and config.freezing.engine_precision == "bf16"
    key = "training.precision" if config.training.precision == "bf16" else "freezing.engine_precision" if frozen else None
    if key is not None and device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        warnings.warn(
            f"{key} is bf16, which this processor has to emulate, several times slower than float32; set {key} float32",
            stacklevel=3,
        )


def build_training(
    plan: Plan, *, journal: Path | None = None, features: Path | None = None, label: str = "", quiet: bool = False
) -> Training:
    """Everything that trains, for this rank of the current process group.

    Args:
        plan: from :func:`prepare`.
        journal: file in which rank 0's ledger notes work in progress.
        features: folder of this run for a feature cache on disk; where ``freezing.cache_dir`` is set, only its name counts.
        label: put before every line of progress.
        quiet: print no progress.

    Raises:
        ResourceError: ``training.compile`` or ``freezing.engine_compile`` is set and cannot work here.
    """
    config = plan.config
    train, data = config.training, config.data
    device = choose_device(config)
    detector = plan.detector.to(device)
    if train.channels_last:
        detector = detector.to(memory_format=torch.channels_last)
    if train.compile or engine_is_compiled(config):
        check_compiler(device.type)
    if train.compile:
        detector.compile()
    groups = parameter_groups(detector, stage_parameters(detector.backbone), train.weight_decay, train.backbone_lr_factor)
    seed = config.seed
    train_images, eval_images = decoded_images(config, plan.train_set, plan.eval_set)
    view = TrainView(plan.train_set, data.image_size, data.flips, seed, train_images, augmentation(config))
    loader = train_loader(
        view,
        batch_size=train.batch_size,
        accumulation=train.accumulation,
        rank=rank(),
        world_size=world_size(),
        seed=seed,
        workers=loader_workers(config, device),
        prefetch=data.prefetch,
        pinned=device.type == "cuda",
        view_per=data.view_per,
    )
    average = WeightAverage(detector, train.ema) if train.ema is not None else None
    if average is not None and train.compile:
        average.detector.compile()
    replicas = Replicas(detector, device)
    optimizer = make_optimizer(train.optimizer, groups, train.lr, train.momentum)
    ledger = Ledger(plan.table, device=device, world_size=world_size(), gather=gather_objects, journal=journal if rank() == 0 else None)
    return Training(
        detector=detector,
        replicas=replicas,
        scheduler=build_scheduler(plan, detector, replicas, optimizer, ledger),
        optimizer=optimizer,
        learning_rate=LearningRate(
            base=train.lr,
            schedule=train.schedule,
            epochs=train.epochs,
            milestones=tuple(train.milestones),
            gamma=train.gamma,
            final_factor=train.final_lr_factor,
            warmup_steps=train.warmup_steps,
            warmup_factor=train.warmup_factor,
        ),
        train_loader=loader,
        eval_loader=build_eval_loader(config, plan.eval_set, eval_images),
        classes=plan.train_set.classes,
        ledger=ledger,
        progress=Progress(train.epochs, plan.num_stages, label=label, quiet=quiet or rank() != 0),
        device=device,
        epochs=train.epochs,
        seed=seed,
        accumulation=train.accumulation,
        clip_norm=train.clip_norm,
        precision=train.precision,
        evaluate_every=config.evaluation.every,
        average=average,
        frozen=build_frozen(config, detector, ledger, device, view, features),
        micro_batches=broadcast_object(plan.micro_batches),  # other machines may round what they were chosen by otherwise
        originals=originals_of(plan.eval_set),
    )


def build_scheduler(
    plan: Plan, detector: Detector, replicas: Replicas, optimizer: torch.optim.Optimizer, ledger: Ledger
) -> FreezingScheduler:
    """The freezing scheduler, with the signals that the policy asks for."""
    config, side = plan.config, square(plan.config)
    freezing = config.freezing
    sources = Sources(detector, ledger, lambda: probe_images(config, plan.train_set), (side, side), config.evaluation.batch_size)
    signals = {name: SIGNALS[name](sources) for name in plan.policy.needs_signals}
    thaw = Thaw(freezing.momentum, freezing.rewarm_steps, freezing.rewarm_after, config.training.warmup_factor)
    return FreezingScheduler(plan.policy, plan.run, Freezer(detector.backbone), replicas, optimizer, signals, thaw)
