"""The training loop; the file to read first.

One epoch: before a step that begins a block (usually the epoch's first) the freezing scheduler asks the
policy how many leading backbone stages are frozen and makes it so; the steps are trained, the ledger adds
what they cost, and the detector is evaluated.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dbf_ray import stopping
from dbf_ray.cost import Ledger
from dbf_ray.data import TrainLoader
from dbf_ray.detectors import Batch, Detector, padded_size
from dbf_ray.errors import TrainingError
from dbf_ray.evaluation import Evaluator
from dbf_ray.training.average import WeightAverage
from dbf_ray.training.ddp import (
    DynamicDDP,
    all_reduce_max,
    all_reduce_sum,
    equalize_norm_buffers,
    rank,
    world_size,
)
from dbf_ray.training.frozen import FrozenPrefix
from dbf_ray.training.micro_batches import MicroBatches, merged
from dbf_ray.training.optim import LearningRate, set_learning_rate
from dbf_ray.training.progress import Progress
from dbf_ray.training.scheduler import FreezingScheduler

GRADIENT_NORM = "gradient_norm"
ANEW = "and begin anew under another name, with that checkpoint as its `weights_checkpoint`"
Evaluated = Callable[[int, Evaluator], None]
CHECK_EVERY = 10  # optimizer steps between two looks at the losses; each look waits for the device


@dataclass
class Training:
    """All that a training needs, each part made and checked before.

    Attributes:
        accumulation: micro-batches of each rank in an optimizer step, as the loader gives them.
        micro_batches: into how many these are merged before they are trained; None: they stay as they are.
        frozen: what runs the frozen prefix instead of the backbone itself; None: nothing.
        originals: objects of the images that the evaluated patches were cut from; None: they are no patches.
        evaluated: called on every rank with the epoch and its evaluation, once that is computed.
    """

    detector: Detector
    ddp: DynamicDDP
    scheduler: FreezingScheduler
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    train_loader: TrainLoader
    eval_loader: Iterable[Any]
    classes: list[str]
    ledger: Ledger
    progress: Progress
    device: torch.device
    epochs: int
    seed: int
    accumulation: int = 1
    clip_norm: float | None = None
    precision: str = "float32"
    evaluate_every: int = 1
    average: WeightAverage | None = None
    frozen: FrozenPrefix | None = None
    micro_batches: MicroBatches | None = None
    originals: Mapping[str, Mapping[str, Any]] | None = None
    evaluated: Evaluated | None = None

    @property
    def eval_detector(self) -> Detector:
        """What is evaluated: the average of the weights where one is kept, else the detector itself."""
        return self.detector if self.average is None else self.average.detector


@dataclass
class LoopState:
    """Where a training stands between two epochs: what a checkpoint keeps beside weights and optimizer."""

    epoch: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)


def fit(training: Training, state: LoopState, after_epoch: Callable[[dict[str, Any]], bool]) -> None:
    """Train from ``state`` on; ``after_epoch(record)`` is called on every rank and ends the training by
    returning False.

    Raises:
        TrainingError: a loss is not finite.
    """
    training.progress.begin(state.epoch)
    go_on = True
    while go_on and state.epoch < training.epochs:
        record = run_epoch(training, state)
        state.records.append(record)
        state.epoch += 1
        go_on = after_epoch(record)


def run_epoch(training: Training, state: LoopState) -> dict[str, Any]:
    """Train, account and evaluate one epoch; returns its record (the keys of epochs.jsonl)."""
    epoch, scheduler, ledger = state.epoch, training.scheduler, training.ledger
    torch.manual_seed(epoch_seed(training.seed, epoch, rank()))

    ledger.begin_epoch(epoch)
    losses, steps_per_prefix = train_epoch(training, epoch)
    gradient_norm = losses.pop(GRADIENT_NORM)
    check_weights(training.detector, epoch)
    ledger.end_steps()
    if training.frozen is not None:
        training.frozen.end_epoch()
    for detector in dict.fromkeys((training.detector, training.eval_detector)):
        equalize_norm_buffers(detector)
    due = (epoch + 1) % training.evaluate_every == 0 or epoch + 1 == training.epochs
    metrics = (
        evaluate(
            training.eval_detector,
            training.eval_loader,
            training.classes,
            training.precision,
            training.originals,
            None if training.evaluated is None else partial(training.evaluated, epoch),
        )
        if due
        else {}
    )
    if metrics:
        scheduler.on_evaluation(metrics)
    costs = ledger.end_epoch(allreduce_bytes=training.ddp.allreduce_bytes)

    loss = sum(losses.values())
    training.progress.epoch(epoch, scheduler.num_frozen, loss, metrics.get("map50"), costs["wall_seconds"])
    return {
        "epoch": epoch,
        "frozen_stages": max(steps_per_prefix, key=lambda prefix: steps_per_prefix[prefix]),
        "steps": training.train_loader.steps_per_epoch,
        "steps_per_prefix": {str(prefix): steps for prefix, steps in sorted(steps_per_prefix.items())},
        "lr": max(group["lr"] for group in training.optimizer.param_groups),
        "loss": loss,
        "losses": losses,
        "gradient_norm": gradient_norm,
        "map50": None,
        **metrics,
        **costs,
        **({} if training.micro_batches is None else {"micro_batches": training.micro_batches.record()}),
    }


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Seed of torch's generators for an epoch, which drop-path draws from: another on each rank, the same
    after a resume.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}/{rank}".encode()).digest()[:7], "big")


def train_epoch(training: Training, epoch: int) -> tuple[dict[str, float], dict[int, int]]:
    """Train one epoch.

    Returns:
        The mean of each loss, and of the gradient norm before clipping, over its steps and all ranks; and how
        many steps each frozen prefix had.
    """
    training.detector.train()
    scheduler, steps = training.scheduler, training.train_loader.steps_per_epoch
    log = LossLog(epoch, steps)
    steps_per_prefix: dict[int, int] = {}
    micro_batches: Iterator[tuple[list[Tensor], list[Any]]] = iter(())
    for step in range(steps):
        of_run = epoch * steps + step
        stage_factors = scheduler.before_step(of_run)
        asked = time.perf_counter()
        if step == 0:
            micro_batches = training.train_loader.epoch(epoch, scheduler.orientations_of(epoch))
        loaded = list(itertools.islice(micro_batches, training.accumulation))
        training.ledger.add_wait(time.perf_counter() - asked)
        merging = training.micro_batches
        known = None if merging is None else merging.counts.get(scheduler.num_frozen)
        images_and_targets = loaded if known is None else merged(loaded, known)
        set_learning_rate(training.optimizer, training.learning_rate.at(of_run, steps), stage_factors)
        pad_to = common_pad_to(
            [image for images, _ in images_and_targets for image in images], training.device
        )
        batches = [
            training.detector.prepare(images, targets, pad_to) for images, targets in images_and_targets
        ]
        log.add(train_step(training, batches))
        scheduler.after_step(of_run)
        steps_per_prefix[scheduler.num_frozen] = steps_per_prefix.get(scheduler.num_frozen, 0) + 1
        for batch in batches:
            training.ledger.step(len(batch.images), batch.padded, scheduler.num_frozen)
        if merging is not None and known is None:
            del batch, batches  # their memory is not what is measured
            merging.choose(training, loaded, backward)
        if step % CHECK_EVERY == CHECK_EVERY - 1:
            log.check()
            loss = sum(value for name, value in log.means().items() if name != GRADIENT_NORM)
            training.progress.step(
                epoch, scheduler.num_frozen, step + 1, steps, training.ledger.images_per_second(), loss
            )
    log.check()
    return log.means(), steps_per_prefix


def train_step(training: Training, batches: list[Batch]) -> dict[str, Tensor]:
    """One optimizer step over this rank's micro-batches.

    Losses are divided by the counts of the *effective* batch, summed over micro-batches and ranks before any
    forward pass, so that the step does not depend on how the batch is spread. DDP averages gradients over
    ranks; hence counts are divided by the world size.

    Returns:
        This rank's share of each loss, summed over its micro-batches (the mean over ranks is the effective
        batch's loss), and the norm of the trained parameters' gradients before clipping.
    """
    counts = all_reduce_sum(torch.stack([batch.normalizers for batch in batches]).sum(0))
    normalizers = training.detector.at_least(counts) / world_size()
    total: dict[str, Tensor] = {}
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        with contextlib.nullcontext() if last else training.ddp.no_sync():
            losses = backward(training, batch, normalizers, training.ddp)
        for name, loss in losses.items():
            total[name] = total.get(name, 0) + loss.detach()
    training.scheduler.on_gradients()
    limit = math.inf if training.clip_norm is None else training.clip_norm
    # frozen parameters have no gradient
    total[GRADIENT_NORM] = torch.nn.utils.clip_grad_norm_(training.detector.parameters(), limit)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    training.scheduler.on_optimizer_step()
    if training.average is not None:
        training.average.update(training.detector)
    return total


def backward(
    training: Training, batch: Batch, normalizers: Tensor, network: Callable[..., dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The losses of a micro-batch by ``network``, the detector or its wrapper; adds their gradients up."""
    with autocast(training.device, training.precision):
        ready = batch if training.frozen is None else training.frozen(batch)
        losses = network(ready, normalizers)
    torch.stack(list(losses.values())).sum().backward()
    return losses


def common_pad_to(images: list[Tensor], device: torch.device) -> tuple[int, int]:
    """Size (height, width) that the images [3, h, w] of an effective batch are all padded to, the same on
    every rank.

    How far an image is padded changes features near its border, so it must not depend on how the batch is
    spread. Ranks agree here, too, on ending before this batch: what one was asked ends all.

    Raises:
        Stopped: one was asked to stop.
    """
    height, width = padded_size([(image.shape[-2], image.shape[-1]) for image in images])
    asked = stopping.asked() or 0
    if world_size() > 1:
        height, width, asked = all_reduce_max(torch.tensor([height, width, asked], device=device)).tolist()
    if asked:
        raise stopping.Stopped(asked)
    return height, width


def check_weights(detector: Detector, epoch: int) -> None:
    """Stop before weights that are not finite reach a checkpoint.

    Raises:
        TrainingError: naming the epoch and the first such parameter or buffer.
    """
    state = [(name, tensor) for name, tensor in detector.state_dict().items() if tensor.is_floating_point()]
    if not bool(torch.stack([tensor.isfinite().all() for _, tensor in state]).all()):
        broken = next(name for name, tensor in state if not bool(tensor.isfinite().all()))
        raise TrainingError(
            f"every weight must be finite, {broken} is not after the last step of epoch {epoch}; the last "
            f"checkpoint is from before this epoch. Lower `lr` or `clip_norm`, {ANEW}"
        )


@torch.no_grad()
def evaluate(
    detector: Detector,
    loader: Iterable[Any],
    classes: list[str],
    precision: str = "float32",
    originals: Mapping[str, Mapping[str, Any]] | None = None,
    evaluated: Callable[[Evaluator], None] | None = None,
) -> dict[str, float]:
    """Metrics over all images of all ranks' loaders, in the same precision as training; the detector's mode
    is restored. ``evaluated`` gets what was found in which image.

    Where the images are patches, ``originals`` are the objects of the images they were cut from, and the
    metrics on these come too, as :meth:`.Evaluator.compute_merged` names them.
    """
    evaluator = Evaluator(len(classes), classes)
    was_training = detector.training
    detector.eval()
    with autocast(detector.mean.device, precision):
        for images, targets in loader:
            if world_size() == 1:  # several end together, before their next step
                stopping.check()
            evaluator.update(detector(images), targets)
    detector.train(was_training)
    evaluator.gather()
    metrics = evaluator.compute() | (evaluator.compute_merged(originals) if originals is not None else {})
    if evaluated is not None:
        evaluated(evaluator)
    return metrics


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 autocast, or none for float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class LossLog:
    """Losses of an epoch's steps, kept on the device and looked at now and then, the same on all ranks."""

    def __init__(self, epoch: int, steps: int) -> None:
        self.epoch, self.steps = epoch, steps
        self._pending: list[dict[str, Tensor]] = []
        self._sums: dict[str, float] = {}
        self._seen = 0

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add a step's losses, without waiting for the device."""
        self._pending.append(losses)

    def check(self) -> None:
        """Average the steps added since the last look over ranks, and stop the training at the first loss
        that is not finite.

        Raises:
            TrainingError: naming the step and the losses, on every rank.
        """
        if not self._pending:
            return
        names = list(self._pending[0])
        table = torch.stack(
            [torch.stack([losses[name].double() for name in names]) for losses in self._pending]
        )
        rows = (all_reduce_sum(table) / world_size()).tolist()
        self._pending.clear()
        for row in rows:
            losses = dict(zip(names, row, strict=True))
            if not all(map(math.isfinite, row)):
                named = ", ".join(f"{name} {value:g}" for name, value in losses.items())
                raise TrainingError(
                    f"every loss and gradient must be finite, got {named} in epoch {self.epoch}, step "
                    f"{self._seen} of {self.steps}; the last checkpoint is from before this epoch. Lower "
                    f"`lr`, lengthen `warmup_steps`, or lower `clip_norm`, {ANEW}"
                )
            for name, value in losses.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
            self._seen += 1

    def means(self) -> dict[str, float]:
        """Mean of each loss over the steps looked at so far."""
        return {name: total / self._seen for name, total in self._sums.items()}
