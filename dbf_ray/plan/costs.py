"""What one training costs in memory and time, by what was measured at batch 1 and 2."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dbf_ray.errors import ConfigError
from dbf_ray.training.micro_batches import OUT_OF_MEMORY

# Of the time at batch 2, what each image more takes at least. A CPU is busy with one image, so a second one
# costs as much, and larger batches leave its caches; a GPU waits for its next kernel at small batches.
LEAST_GROWTH = {"cpu": 0.5, "cuda": 0.25}
FOUND = 1.5  # an untrained detector finds next to nothing; with detections to suppress an image takes longer


@dataclass(frozen=True)
class Budget:
    """What a training may take.

    Attributes:
        memory_gb: GB of tensors on each device; None: not limited.
        train_hours: of one training with all of the backbone trained, its evaluations included; None: not
            limited.

    Raises:
        ConfigError: one is not a number above 0.
    """

    memory_gb: float | None = None
    train_hours: float | None = None

    def __post_init__(self) -> None:
        for option, value, usual in (
            ("--memory-gb", self.memory_gb, "8, what a device has to spare"),
            ("--train-hours", self.train_hours, "2, or leave it out"),
        ):
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{option} must be a number above 0, got {value:g}; give one as {usual}")

    def __bool__(self) -> bool:
        return self.memory_gb is not None or self.train_hours is not None


@dataclass(frozen=True)
class Costs:
    """Figures of real steps and evaluations, of one worker.

    Attributes:
        device: that they were measured on.
        side: of the square that images were padded to, pixels.
        step_seconds: of an optimizer step at batch 1 and 2, images being loaded.
        step_bytes: of tensors, the most at batch 1 and 2, as ``training.micro_batch_gb`` measures it: two
            micro-batches are prepared and run forward and backward, the images with most objects first.
        fixed_bytes: of these, before the second pass.
        grown_bytes: beyond these, the most in the second pass.
        load_seconds, reload_seconds: to prepare a training image, the first time and when it is kept decoded.
        evaluation_seconds: of an image that is loaded, by the detector before it is trained.
        evaluation_bytes: of tensors, the most at batch 1 and 2.
        loaders: processes that load images while the device works; 0: none.
        kept: whether all images stay decoded in memory.
        train_images, eval_images: how many there are.
        steps: how many were timed at batch 1 and 2; 0: estimated from smaller ones.
    """

    device: str
    side: int
    step_seconds: tuple[float, float]
    step_bytes: tuple[int, int]
    fixed_bytes: tuple[int, int]
    grown_bytes: tuple[int, int]
    load_seconds: float
    reload_seconds: float
    evaluation_seconds: float
    evaluation_bytes: tuple[int, int]
    loaders: int
    kept: bool
    train_images: int
    eval_images: int
    steps: tuple[int, int]

    def bytes_of(self, images: int, micro_batches: int = 2) -> int:
        """The most at once in a step: each image of a micro-batch takes as much as the second did, and those
        of all micro-batches are prepared before.
        """
        more = max(0, self.fixed_bytes[1] - self.fixed_bytes[0]) / 2  # of an image that is prepared
        prepared, seen = images * max(2, micro_batches), min(images, 2)
        in_pass = self.fixed_bytes[0] + round(more * (prepared - 2)) + _line(self.grown_bytes, images)
        before = self.step_bytes[seen - 1] + round(more * (prepared - 2 * seen))
        return max(in_pass, before)

    def evaluation_bytes_of(self, images: int) -> int:
        """The most at once in an evaluation batch."""
        return _line(self.evaluation_bytes, images)

    def step_seconds_of(self, images: int, micro_batches: int = 1, area: float = 1.0) -> float:
        """Of a step of so many micro-batches with ``images`` each, loading included.

        Args:
            images: in a micro-batch of one worker.
            micro_batches: in a step.
            area: of a padded image, as a share of ``side`` squared.
        """
        first, second = self.step_seconds
        each = max(second - first, LEAST_GROWTH[self.device] * second)
        always = max(0.0, first - each)
        computing = micro_batches * (always + each * area * images)
        return self.with_loading(computing, images * micro_batches)

    def with_loading(self, computing: float, images: int) -> float:
        """Seconds of work of which so many images are loaded for the second time or later."""
        return self._beside(computing, self._load(again=True) * images)

    def evaluation_seconds_of(self, workers: int = 1) -> float:
        """Of one evaluation of all images by so many workers."""
        images = math.ceil(self.eval_images / workers)
        return self.with_loading(FOUND * self.evaluation_seconds * images, images)

    def first_seconds(self, workers: int = 1) -> float:
        """What the first epoch takes longer, where images are decoded only in it."""
        images = math.ceil((self.train_images + self.eval_images) / workers)
        return (self._load(again=False) - self._load(again=True)) * images / max(1, self.loaders)

    def _load(self, again: bool) -> float:
        """Of an image, once more or for the first time; never kept: each time is the first."""
        return min(self.load_seconds, self.reload_seconds) if again and self.kept else self.load_seconds

    def _beside(self, computing: float, loading: float) -> float:
        return max(computing, loading / self.loaders) if self.loaders else computing + loading


def _line(values: tuple[int, int], images: int) -> int:
    first, second = values
    return first + max(0, second - first) * (images - 1)


def training_seconds(
    costs: Costs, *, steps: int, step: float, epochs: int, every: int, workers: int = 1
) -> float:
    """Of one training with its evaluations, the last epoch's included.

    Args:
        costs: as measured.
        steps: in an epoch.
        step: seconds of one.
        epochs: to train.
        every: how many epochs there are from one evaluation to the next.
        workers: that share images.
    """
    evaluations = math.ceil(epochs / every) * costs.evaluation_seconds_of(workers)
    return costs.first_seconds(workers) + epochs * steps * step + evaluations


def gigabytes(size: float) -> str:
    """Bytes for a person."""
    return (
        "more than there is"
        if size >= OUT_OF_MEMORY
        else f"{size / 1e9:.2g} GB"
        if size < 1e9
        else f"{size / 1e9:.2f} GB"
    )
