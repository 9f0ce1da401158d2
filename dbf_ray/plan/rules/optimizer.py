"""How long and how fast to train: learning rate, weight decay, epochs, warm-up, the largest sound batch."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from dbf_ray.config import Config
from dbf_ray.plan.choices import Choice, Facts
from dbf_ray.plan.kinds import is_two_stage

LEAST_EPOCHS, MOST_EPOCHS = 12, 300
LEAST_STEPS = 1500  # of the optimizer, in all
WARMUP_SHARE, MOST_WARMUP = 0.05, 500
MOST_FACTOR = 4.0  # that a learning rate is scaled by


class Base(NamedTuple):
    """A learning rate that is known to work at a batch size, and by which power of the batch it grows."""

    lr: float
    batch: int
    power: float


SGD, SGD_TWO_STAGES = Base(0.0025, 2, 1.0), Base(0.005, 2, 1.0)  # MMRotate's schedules, at 2 images a GPU
ADAMW = Base(4e-4, 4, 0.5)
WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 0.05}


def learning_rate(optimizer: Literal["sgd", "adamw"], batch: int, two_stages: bool = False) -> float:
    """By the batch: SGD's linearly (arXiv 1706.02677), AdamW's by the square root (arXiv 2205.10287), by a
    factor of 4 at most either way. Two significant digits.
    """
    base = ADAMW if optimizer == "adamw" else SGD_TWO_STAGES if two_stages else SGD
    factor = min(MOST_FACTOR, max(1 / MOST_FACTOR, (batch / base.batch) ** base.power))
    return float(f"{base.lr * factor:.2g}")


def largest_batch(images: int) -> int:
    """A quarter of the images, at least 1."""
    return max(1, images // 4)


def epochs(steps_per_epoch: int) -> int:
    """12, or as many as give 1,500 optimizer steps, at most 300."""
    return min(MOST_EPOCHS, max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / max(1, steps_per_epoch))))


def warmup_steps(steps: int) -> int:
    """5 % of all ``steps``, at most 500."""
    return min(MOST_WARMUP, round(WARMUP_SHARE * steps))


def training_images(facts: Facts, config: Config) -> int:
    """How many images are trained on: what is held out is not."""
    images = len(facts.objects.sizes)
    return max(1, round(images * (1 - config.data.selection_fraction)))


def batch_rule(facts: Facts, config: Config) -> list[Choice]:
    """``training.batch_size``, where the base's is too large; workers and micro-batches share it evenly."""
    train, images = config.training, training_images(facts, config)
    batch = min(train.batch_size, largest_batch(images))
    parts = config.cluster.workers * train.accumulation
    batch = max(parts, batch - batch % parts)
    if batch == train.batch_size:
        return []
    return [Choice("training.batch_size", batch, f"a quarter of {images} images at most", "batch")]


def rule(facts: Facts, config: Config) -> list[Choice]:
    """How fast to train, by the optimizer, the batch and the epochs."""
    train = config.training
    steps = max(1, training_images(facts, config) // train.batch_size) * train.epochs
    rate = learning_rate(train.optimizer, train.batch_size, is_two_stage(config.detector.name))
    return [
        Choice("training.lr", rate, f"{train.optimizer} at batch {train.batch_size}", "learning rate"),
        Choice("training.weight_decay", WEIGHT_DECAY[train.optimizer], train.optimizer, "weight decay"),
        Choice("training.schedule", "cosine", "whatever the number of epochs", "learning rate"),
        Choice(
            "training.warmup_steps",
            warmup_steps(steps),
            f"{WARMUP_SHARE:.0%} of {steps} steps, at most {MOST_WARMUP}",
            "warm-up",
        ),
    ]
