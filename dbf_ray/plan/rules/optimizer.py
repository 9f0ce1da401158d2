"""How long and how fast to train: learning rate, weight decay, epochs, warm-up, and the largest sound batch."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

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
