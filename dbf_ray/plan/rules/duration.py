"""Epochs: as many as learning needs, no more than time holds."""

from __future__ import annotations

import math

from dbf_ray.config import Config
from dbf_ray.errors import ConfigError
from dbf_ray.plan.choices import Choice, Facts, costs_of
from dbf_ray.plan.costs import Costs, training_seconds
from dbf_ray.plan.rules.memory import padded_area
from dbf_ray.plan.rules.optimizer import LEAST_STEPS, epochs, training_images

SPARE = 0.1  # of the hours: checkpoints, records, and what else the machine does
EVALUATIONS = 0.1  # of a training, at most, as far as fewer evaluations can bring it there
MOST_EVALUATIONS = 25  # of a training, where time is not limited
LEAST_EPOCHS = 3  # after fewer the head has hardly left its warm-up, unless they are long


def steps_of(images: int, batch: int) -> int:
    """Optimizer steps in an epoch."""
    return max(1, images // batch)


def every_within(epoch: float, evaluation: float, every: int, epochs: int) -> int:
    """Epochs from one evaluation to the next: ``every``, or as many more as bring evaluations down to a tenth
    of the time.

    Args:
        epoch: seconds of an epoch's steps.
        evaluation: seconds of an evaluation.
        every: what is configured.
        epochs: of the training, which is the most that is given.
    """
    wanted = math.ceil(evaluation * (1 - EVALUATIONS) / (EVALUATIONS * max(epoch, 1e-9)))
    return min(max(every, wanted), max(every, epochs))


def least_epochs(steps: int) -> int:
    """Epochs below which a training is not worth it: 3, or what 1,500 steps take."""
    return min(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps))


class Estimate:
    """How long a configured training will take, all of its backbone trained."""

    def __init__(self, facts: Facts, config: Config, costs: Costs) -> None:
        train, self.workers, self.costs = config.training, config.cluster.workers, costs
        self.batch, self.steps = train.batch_size, steps_of(costs.train_images, train.batch_size)
        part = math.ceil(train.batch_size / (self.workers * train.accumulation))
        self.step = costs.step_seconds_of(part, train.accumulation, padded_area(facts, config))
        self.evaluation = costs.evaluation_seconds_of(self.workers)

    def __str__(self) -> str:
        return f"{self.step:.3g} s a step of {self.batch} images, {self.evaluation:.3g} s an evaluation"

    @property
    def epoch(self) -> float:
        """Seconds of an epoch's steps."""
        return self.steps * self.step

    def seconds(self, epochs: int, every: int) -> float:
        """Of a training."""
        return training_seconds(
            self.costs, steps=self.steps, step=self.step, epochs=epochs, every=every, workers=self.workers
        )

    def longest(self, wanted: int, every: int, limit: float) -> tuple[int, int]:
        """The most epochs, up to ``wanted``, that take ``limit`` seconds or less (0: none), and how often to
        evaluate.
        """
        for count in range(wanted, 0, -1):
            due = every_within(self.epoch, self.evaluation, every, count)
            if self.seconds(count, due) <= limit:
                return count, due
        return 0, every


def rule(facts: Facts, config: Config) -> list[Choice]:
    """``training.epochs``; with ``--train-hours`` no more than fit, and ``evaluation.every`` if evaluations
    take too much of it.

    Raises:
        ConfigError: too few fit to be of use.
    """
    batch, hours = config.training.batch_size, facts.budget.train_hours
    steps = steps_of(training_images(facts, config), batch)
    wanted = epochs(steps)
    if hours is None:
        why = f"{steps} steps in each, {steps * wanted} in all"
        return [Choice("training.epochs", wanted, why, "epochs"), *evaluations(facts, config, wanted)]
    known = Estimate(facts, config, costs_of(facts, config))
    limit, every = (1 - SPARE) * 3600 * hours, config.evaluation.every
    count, due = known.longest(wanted, every, limit)
    least = min(wanted, least_epochs(steps))
    if count < least and "training.epochs" not in facts.given:
        due = every_within(known.epoch, known.evaluation, every, least)
        needed = known.seconds(least, due) / (1 - SPARE) / 3600
        raise ConfigError(
            f"--train-hours must hold {least} epochs of {steps} steps, which take {needed:.2g} hours "
            f"({known}), got {hours:g}; give a smaller --data.image_size, or more hours"
        )
    count = max(count, least)
    fewer = f"of {wanted} that would be chosen {count} fit: " if count < wanted else ""
    why = (
        f"{fewer}{steps} steps in each, {steps * count} in all, about "
        f"{known.seconds(count, due) / 3600:.2g} of {hours:g} hours ({known})"
    )
    found = [Choice("training.epochs", count, why, "hours" if count < wanted else "epochs")]
    if due != every:
        why = f"{known.evaluation:.3g} s an evaluation, {known.epoch:.3g} s an epoch"
        found.append(Choice("evaluation.every", due, why, "hours"))
    return found


def evaluations(facts: Facts, config: Config, epochs: int) -> list[Choice]:
    """``evaluation.every``, where the base's gives more evaluations than a curve needs."""
    train = config.training
    epochs = train.epochs if "training.epochs" in facts.given else epochs
    every = math.ceil(epochs / MOST_EVALUATIONS)
    if every <= config.evaluation.every:
        return []
    return [Choice("evaluation.every", every, f"{MOST_EVALUATIONS} evaluations at most", "evaluations")]


def warnings(facts: Facts, config: Config) -> list[str]:
    """Where a training will be long, or too short."""
    hours, train = facts.budget.train_hours, config.training
    if hours is None:
        return []
    known = Estimate(facts, config, costs_of(facts, config))
    seconds, wanted = known.seconds(train.epochs, config.evaluation.every), epochs(known.steps)
    found = []
    if seconds > 3600 * hours:
        found.append(
            f"a training takes about {seconds / 3600:.2g} hours, more than --train-hours {hours:g}; "
            "training.epochs or evaluation.every stays as given"
        )
    if train.epochs < wanted / 2:
        found.append(
            f"{train.epochs} epochs are less than half of {wanted}, expect less of them; a smaller "
            "data.image_size, or a frozen backbone, leaves time for more"
        )
    return found
