"""The parts that train, made of a checked run."""

from __future__ import annotations

from pathlib import Path

import torch

from dbf_ray.build.data import build_eval_loader, decoded_images, probe_images
from dbf_ray.build.frozen import build_frozen
from dbf_ray.build.spec import RunSpec
from dbf_ray.config import at
from dbf_ray.cost import Ledger
from dbf_ray.data import TrainView, originals_of, train_loader
from dbf_ray.detectors import Detector
from dbf_ray.detectors.compiled import check_compiler
from dbf_ray.freezing import Freezer, stage_parameters
from dbf_ray.training.average import WeightAverage
from dbf_ray.training.ddp import DynamicDDP, gather_objects, rank, world_size
from dbf_ray.training.loop import Training
from dbf_ray.training.micro_batches import MicroBatches
from dbf_ray.training.optim import LearningRate, make_optimizer, parameter_groups
from dbf_ray.training.progress import Progress
from dbf_ray.training.scheduler import FreezingScheduler
from dbf_ray.training.signals import SIGNALS, Sources


@at("data", "training", "freezing")
def build_training(
    spec: RunSpec,
    *,
    journal: Path | None = None,
    features: Path | None = None,
    label: str = "",
    quiet: bool = False,
) -> Training:
    """Everything that trains, for this rank of the current process group.

    Args:
        spec: from :func:`prepare`.
        journal: file in which rank 0's ledger notes work in progress.
        features: folder of this run for a feature cache on disk; where ``freezing.cache_dir`` is set, only
            its name counts.
        label: put before every line of progress.
        quiet: print no progress.

    Raises:
        ResourceError: ``training.compile`` or ``freezing.engine_compile`` is set and cannot work here.
    """
    train, seed = spec.train, spec.seed
    device, images, feed, limit = spec.device, spec.images, spec.feed, train.micro_batch_gb
    detector = spec.detector.to(device)
    if train.channels_last:
        detector = detector.to(memory_format=torch.channels_last)
    if train.compile or spec.frozen.compiled:
        check_compiler(device.type)
    if train.compile:
        detector.compile()
    groups = parameter_groups(
        detector, stage_parameters(detector.backbone), train.weight_decay, train.backbone_lr_factor
    )
    train_images, eval_images = decoded_images(spec.train_set, spec.eval_set, images.size, feed.decoded_bytes)
    view = TrainView(spec.train_set, images.size, images.flips, seed, train_images, images.augmentation)
    loader = train_loader(
        view,
        batch_size=train.batch_size,
        accumulation=train.accumulation,
        rank=rank(),
        world_size=world_size(),
        seed=seed,
        workers=feed.workers,
        prefetch=feed.prefetch,
        pinned=feed.pinned,
        orientation_per=images.orientation_per,
    )
    average = WeightAverage(detector, train.ema) if train.ema is not None else None
    if average is not None and train.compile:
        average.detector.compile()
    ddp = DynamicDDP(detector, device)
    optimizer = make_optimizer(train.optimizer, groups, train.lr, train.momentum)
    ledger = Ledger(
        spec.table,
        device=device,
        world_size=world_size(),
        gather=gather_objects,
        journal=journal if rank() == 0 else None,
    )
    return Training(
        detector=detector,
        ddp=ddp,
        scheduler=build_scheduler(spec, detector, ddp, optimizer, ledger),
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
        eval_loader=build_eval_loader(spec.eval_set, images.size, feed, eval_images),
        classes=spec.train_set.classes,
        ledger=ledger,
        progress=Progress(train.epochs, spec.num_stages, label=label, quiet=quiet or rank() != 0),
        device=device,
        epochs=train.epochs,
        seed=seed,
        accumulation=train.accumulation,
        clip_norm=train.clip_norm,
        precision=train.precision,
        evaluate_every=spec.evaluate_every,
        average=average,
        frozen=build_frozen(
            spec.frozen,
            detector,
            ledger,
            view,
            device=device,
            data_name=spec.data_name,
            folder=features,
        ),
        micro_batches=MicroBatches(round(limit * 1e9), images.largest)
        if limit is not None and train.accumulation > 1
        else None,
        originals=originals_of(spec.eval_set),
    )


def build_scheduler(
    spec: RunSpec, detector: Detector, ddp: DynamicDDP, optimizer: torch.optim.Optimizer, ledger: Ledger
) -> FreezingScheduler:
    """The freezing scheduler, with the signals that the policy asks for."""
    side = spec.images.square
    sources = Sources(
        detector,
        ledger,
        lambda: probe_images(spec.train_set, spec.images.size),
        (side, side),
        spec.feed.eval_batch,
    )
    signals = {name: SIGNALS[name](sources) for name in spec.policy.needs_signals}
    return FreezingScheduler(
        spec.policy, spec.horizon, Freezer(detector.backbone), ddp, optimizer, signals, spec.thaw
    )
