"""The one place where configuration becomes objects.

:func:`prepare` checks everything that can be known before work starts and says what the run will cost;
:func:`build_training` makes the parts that train.
"""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from dbf_ray.config import Config
from dbf_ray.cost import FlopTable, Ledger, compute_ratio
from dbf_ray.data import Dataset, EvalView, TrainView, eval_loader, make_dataset, split_selection, train_loader
from dbf_ray.data.loaders import MicroBatchSampler
from dbf_ray.detectors import DETECTORS, Detector, check_options, make_detector, with_defaults
from dbf_ray.detectors.base import SIZE_DIVISOR
from dbf_ray.detectors.compiled import check_compiler
from dbf_ray.detectors.mmrotate import load_mmrotate_checkpoint
from dbf_ray.detectors.options import check_ranges
from dbf_ray.errors import ConfigError, ResourceError
from dbf_ray.freezing import Freezer, Policy, budget, make_policy, stage_parameters
from dbf_ray.training.ddp import Replicas, gather_objects, rank, world_size
from dbf_ray.training.loop import Training
from dbf_ray.training.optim import LearningRate, make_optimizer, parameter_groups
from dbf_ray.training.progress import Progress


@dataclass(frozen=True)
class Plan:
    """A checked run, before anything is trained.

    Attributes:
        detector: built and loaded, on the CPU.
        eval_split: "val"; "selection" where a part of train is held out to select on; "train" where there is nothing else.
        num_stages: K of the backbone.
        frozen_prefixes: effective prefix of each epoch; None for policies that decide while training.
        flops_per_prefix: nominal training FLOPs per image with the first 0..K stages frozen.
        compute_ratio: nominal cost over that of policy full; None where ``frozen_prefixes`` is.
        backbone_share: b, the backbone's share of forward FLOPs.
    """

    config: Config
    train_set: Dataset
    eval_set: Dataset
    eval_split: str
    detector: Detector
    policy: Policy
    num_stages: int
    frozen_prefixes: list[int] | None
    flops_per_prefix: list[int]
    compute_ratio: float | None
    backbone_share: float

    @property
    def budget(self) -> int | None:
        """Epochs in which any part of the backbone is trained."""
        return None if self.frozen_prefixes is None else budget(self.frozen_prefixes, self.num_stages)

    def cost_of(self, prefixes: list[int]) -> float:
        """compute_ratio of a timeline of effective prefixes."""
        return compute_ratio(prefixes, self.flops_per_prefix, self.detector.backbone.frozen_stages)


def prepare(config: Config) -> Plan:
    """Check a run and make what it trains.

    Raises:
        DbfRayError: anything in the configuration, data or weights that cannot work.
    """
    policy = make_policy(config.freezing.policy, **config.freezing.parameters)
    detector_options(config)
    choose_device(config)
    train_set, eval_set, eval_split = make_datasets(config)
    check_batches(config, len(train_set))
    detector = build_detector(config, train_set.classes)
    always, stages = detector.backbone.frozen_stages, detector.backbone.num_stages
    size = square(config)
    table = FlopTable(detector)
    flops = table.per_prefix(size, size)
    prefixes = None
    if not policy.needs_signals:
        prefixes = [max(n, always) for n in policy.decisions(config.training.epochs, stages, config.seed)]
    ratio = None if prefixes is None else compute_ratio(prefixes, flops, always)
    share = table.backbone_share(size, size)
    return Plan(config, train_set, eval_set, eval_split, detector, policy, stages, prefixes, flops, ratio, share)


def square(config: Config) -> int:
    """Side in pixels of the square that every image fits into after resizing and padding."""
    return math.ceil(config.data.image_size / SIZE_DIVISOR) * SIZE_DIVISOR


def make_datasets(config: Config) -> tuple[Dataset, Dataset, str]:
    """Training set, evaluation set, and which split the latter is: "val"; "selection", where a part of train is held out; or "train", where the
    data folder has no splits and nothing is held out.
    """
    train_set = make_split(config, "train")
    if config.data.selection_fraction > 0:
        kept, held = split_selection(train_set, config.data.selection_fraction, config.seed)
        return kept, held, "selection"
    eval_set = make_split(config, "val", train_set.classes)
    same = config.data.root is not None and getattr(train_set, "folder", None) == getattr(eval_set, "folder", None)
    if same:
        warnings.warn(
            f"{config.data.root} has no train/ and val/: the images that are trained on are evaluated on, which says little; "
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
        images=data.train_images if split == "train" else data.val_images,
        image_size=data.image_size,
        drop_empty=data.drop_empty and split == "train",
    )


def check_batches(config: Config, images: int) -> None:
    """Refuse a training set of fewer ``images`` than one effective batch, or a batch that workers and micro-batches cannot share."""
    train = config.training
    MicroBatchSampler(
        images, batch_size=train.batch_size, accumulation=train.accumulation, rank=0, world_size=config.cluster.workers, seed=0
    )


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
    if config.training.compile:
        built.least_canvas = (square(config), square(config))
    if detector.weights_mmrotate is not None:
        placement = load_mmrotate_checkpoint(built, Path(detector.weights_mmrotate).expanduser())
        if placement.unplaced or placement.missing:
            warnings.warn(f"{detector.weights_mmrotate}: {placement}", stacklevel=2)
    return built


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


def build_training(plan: Plan, *, journal: Path | None = None, label: str = "", quiet: bool = False) -> Training:
    """Everything that trains, for this rank of the current process group.

    Args:
        plan: from :func:`prepare`.
        journal: file in which rank 0's ledger notes work in progress.
        label: put before every line of progress.
        quiet: print no progress.

    Raises:
        ResourceError: ``training.compile`` is set and cannot work here.
    """
    config = plan.config
    train, data = config.training, config.data
    device = choose_device(config)
    detector = plan.detector.to(device)
    if train.channels_last:
        detector = detector.to(memory_format=torch.channels_last)
    if train.compile:
        check_compiler(device.type)
        detector.compile()
    groups = parameter_groups(detector, stage_parameters(detector.backbone), train.weight_decay, train.backbone_lr_factor)
    seed = config.seed
    loader = train_loader(
        TrainView(plan.train_set, data.image_size, data.flips, seed),
        batch_size=train.batch_size,
        accumulation=train.accumulation,
        rank=rank(),
        world_size=world_size(),
        seed=seed,
        workers=data.loader_workers,
    )
    return Training(
        detector=detector,
        replicas=Replicas(detector, device),
        freezer=Freezer(detector.backbone),
        policy=plan.policy,
        optimizer=make_optimizer(train.optimizer, groups, train.lr, train.momentum),
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
        eval_loader=build_eval_loader(config, plan.eval_set),
        classes=plan.train_set.classes,
        ledger=Ledger(detector, device=device, world_size=world_size(), gather=gather_objects, journal=journal if rank() == 0 else None),
        progress=Progress(train.epochs, plan.num_stages, label=label, quiet=quiet or rank() != 0),
        device=device,
        epochs=train.epochs,
        seed=seed,
        accumulation=train.accumulation,
        clip_norm=train.clip_norm,
        precision=train.precision,
        evaluate_every=config.evaluation.every,
    )


def build_eval_loader(config: Config, dataset: Dataset) -> Any:
    """This rank's share of an evaluation set."""
    return eval_loader(
        EvalView(dataset, config.data.image_size),
        batch_size=config.evaluation.batch_size,
        rank=rank(),
        world_size=world_size(),
        workers=config.data.loader_workers,
    )
