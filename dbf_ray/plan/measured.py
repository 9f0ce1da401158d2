"""Real steps and evaluations at batch 1 and 2, of what is configured so far, on its device.

Nothing is written and nothing is kept: the caller's random state, number of threads and data stay as they
were. Weights hardly move. It takes a minute at most: images of a quarter of the side come first, and where
these tell that a whole one would take too long, or more memory than there is, they are what is known.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import psutil
import torch

from dbf_ray.build import RunSpec, build_training, prepare
from dbf_ray.build.data import decoded_images
from dbf_ray.config import Config, make_config, to_dict
from dbf_ray.data import EvalView, TrainView
from dbf_ray.data.contents import flags_of
from dbf_ray.data.samples import Sample
from dbf_ray.detectors.base import SIZE_DIVISOR
from dbf_ray.plan.costs import Costs, gigabytes
from dbf_ray.plan.objects import tells_targets
from dbf_ray.training.loop import Training, backward, evaluate, train_step
from dbf_ray.training.micro_batches import OUT_OF_MEMORY, counted, rehearse

LIMIT = 60.0  # seconds
REPEATS = 4  # steps that are timed at each batch size
SHRINK = 4  # how much smaller the side of the first images is
EVALUATED = 8  # images
MOST_OF_RAM = 0.8  # of what is free
BATCHES = (1, 2)


class Clock:
    """The time that is left of ``limit`` seconds."""

    def __init__(self, limit: float) -> None:
        self._end = time.perf_counter() + limit

    def holds(self, seconds: float) -> bool:
        """Whether so many seconds are left."""
        return time.perf_counter() + seconds <= self._end


def measure(config: Config, say: Callable[[str], None] = lambda _: None, limit: float = LIMIT) -> Costs:
    """Time and memory of steps at batch 1 and 2, all of the backbone trained.

    Args:
        config: detector, image size, augmentation, optimizer, precision, device, threads; graphs are not
            compiled.
        say: takes a line for a person now and then.
        limit: seconds after which nothing more is begun.

    Raises:
        DbfRayError: the data or the configuration cannot be used.
    """
    clock = Clock(limit)
    with measuring(config, measured_config(config)) as (spec, training):
        say(
            f"measuring real steps on {training.device.type} at {spec.images.largest} px, {limit:g} s at most"
        )
        found = Measurement(spec, training, clock, several=config.cluster.workers > 1).costs()
        del training
    for batch, seconds, most in zip(BATCHES, found.step_seconds, found.step_bytes, strict=True):
        say(f"batch {batch}: {seconds:.2f} s a step, {gigabytes(most)}")
    return found


@contextlib.contextmanager
def measuring(
    config: Config, measured: Config, features: Path | None = None
) -> Iterator[tuple[RunSpec, Training]]:
    """A training to measure, on the threads that a worker of ``config`` has; nothing is left of it.

    Args:
        config: what is meant.
        measured: what is built, of :func:`measured_config`.
        features: folder for a feature cache on disk.
    """
    cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(cuda), threads_of(config), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a training says it
        spec = prepare(measured)
        yield spec, build_training(spec, features=features, quiet=True)
        del spec
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measured_config(config: Config, freezing: Mapping[str, Any] = MappingProxyType({})) -> Config:
    """``config`` as one worker trains all of it, step by step and slowly; weights only from a file.
    ``freezing``: what that section says.
    """
    values = to_dict(config)
    weights = config.detector.weights_backbone
    here = weights is not None and Path(weights).expanduser().is_file()
    values["detector"]["weights_backbone"] = weights if here else None
    values["training"] |= {
        "batch_size": 1,
        "accumulation": 1,
        "micro_batch_gb": None,
        "compile": False,
        "lr": 1e-9,
    }
    return make_config(values | {"freezing": dict(freezing), "cluster": {}}, "what is measured")


@contextlib.contextmanager
def threads_of(config: Config) -> Iterator[None]:
    """With as many threads as a worker has."""
    before, own = torch.get_num_threads(), config.training.threads
    if own is None and (config.cluster.workers > 1 or config.cluster.use_ray):
        own = config.cluster.cpus_per_worker
    try:
        torch.set_num_threads(own or before)
        yield
    finally:
        torch.set_num_threads(before)


class _Steps(NamedTuple):
    """Of steps at batch 1 and 2: seconds, what :func:`.micro_batches.rehearse` gives, how many were timed."""

    seconds: list[float]
    bytes: list[tuple[int, int, int]]
    timed: list[int]

    def size(self, place: int) -> int:
        """The most bytes."""
        return min(OUT_OF_MEMORY, self.bytes[place][2])


class Measurement:
    """One measurement, within the time of ``clock``."""

    def __init__(self, spec: RunSpec, training: Training, clock: Clock, *, several: bool = False) -> None:
        self.spec, self.training, self.clock = spec, training, clock
        self.side = spec.images.largest
        trained = [p for p in training.detector.parameters() if p.requires_grad]
        self.copied = sum(p.nbytes for p in trained) if several else 0  # by DDP, of gradients
        images = spec.images
        sets = spec.train_set, spec.eval_set
        decoded = decoded_images(*sets, images.size, spec.feed.decoded_bytes)
        self.kept = all(store.kept == len(store) for store in decoded)
        self.view = TrainView(
            spec.train_set, images.size, images.flips, spec.seed, decoded[0], images.augmentation
        )
        count = min(len(spec.train_set), BATCHES[-1] * REPEATS)
        self.typical = [number * len(spec.train_set) // count for number in range(count)]
        self.load_seconds: dict[int, float] = {}  # of an image, the first time
        training.detector.least_pad_to = (0, 0)
        training.detector.train()
        training.scheduler.before_step(0)

    def costs(self) -> Costs:
        """What is found in time."""
        steps = self._small()
        if self.clock.holds(3.5 * steps.seconds[0]) and steps.size(0) < self._free():
            steps = self._whole()
        evaluation, evaluation_bytes = self._evaluation(steps)
        self._loaded(self.typical[:2])  # if none was
        reload = self._timed(lambda: [self.view[1, index] for index in self.typical[:2]]) / 2
        return Costs(
            device=self.training.device.type,
            side=self.side,
            step_seconds=(steps.seconds[0], steps.seconds[1]),
            step_bytes=(steps.size(0) + self.copied, steps.size(1) + self.copied),
            fixed_bytes=(steps.bytes[0][0] + self.copied, steps.bytes[1][0] + self.copied),
            grown_bytes=(steps.bytes[0][1], steps.bytes[1][1]),
            load_seconds=statistics.median(self.load_seconds.values()),
            reload_seconds=reload,
            evaluation_seconds=evaluation,
            evaluation_bytes=evaluation_bytes,
            loaders=self.spec.feed.workers,
            kept=self.kept,
            train_images=len(self.spec.train_set),
            eval_images=len(self.spec.eval_set),
            steps=(steps.timed[0], steps.timed[1]),
        )

    def _small(self) -> _Steps:
        """What images of a quarter of the side tell: time and what grows are in proportion to pixels."""
        side = -(-self.spec.images.size // SHRINK // SIZE_DIVISOR) * SIZE_DIVISOR
        view = TrainView(self.spec.train_set, side, self.spec.images.flips, self.spec.seed)
        parts = [view[0, self.typical[0]]]
        more, pixels = self.side**2 - side**2, (self.side / side) ** 2
        self._step(parts, side)
        seconds = self._timed(lambda: self._step(parts, side)) * pixels
        fixed, grown, _ = self._rehearsed(parts, side)
        grown = min(OUT_OF_MEMORY, round(grown * pixels))
        prepared = 2 * 3 * 4 * more  # two images of float32
        rows = [(fixed + batch * prepared, batch * grown) for batch in BATCHES]
        return _Steps([seconds, 2 * seconds], [(*row, sum(row)) for row in rows], [0, 0])

    def _whole(self) -> _Steps:
        """Images of the size that is trained; batch 2 is twice batch 1 where there is no time for it."""
        crowded = self._loaded(self._crowded())
        found = _Steps([], [], [])
        for batch in BATCHES:
            if found.seconds and not (
                self.clock.holds(3.5 * batch * found.seconds[0]) and batch * found.size(0) < self._free()
            ):
                break
            try:
                times = self._times(batch)
            except torch.OutOfMemoryError:
                times = []
            found.seconds.append(statistics.median(times or [2 * sum(found.seconds)]))
            found.timed.append(len(times))
            found.bytes.append(
                self._rehearsed(crowded[:batch], self.side) if times else (0, OUT_OF_MEMORY, OUT_OF_MEMORY)
            )
        if len(found.seconds) == 1:
            fixed, grown, _ = found.bytes[0]
            found.seconds.append(2 * found.seconds[0])
            found.bytes.append((fixed, 2 * grown, fixed + 2 * grown))
            found.timed.append(0)
        return found

    def _times(self, batch: int) -> list[float]:
        """Seconds of some steps; one before them is not timed."""
        times: list[float] = []
        for repeat in range(REPEATS + 1):
            chosen = [self.typical[(repeat * batch + place) % len(self.typical)] for place in range(batch)]
            parts = self._loaded(chosen)
            took = self._timed(functools.partial(self._step, parts, self.side))
            if repeat or not self.clock.holds(5 * took):
                times.append(took)
            if not self.clock.holds(5 * took):  # what follows has to have its turn, too
                break
        return times

    def _loaded(self, chosen: Sequence[int]) -> list[Sample]:
        """Training images; how long each took when it was not decoded before is noted."""
        found = []
        for index in chosen:
            begun = time.perf_counter()
            found.append(self.view[0, index])
            self.load_seconds.setdefault(index, time.perf_counter() - begun)
        return found

    def _evaluation(self, steps: _Steps) -> tuple[float, tuple[int, int]]:
        """Seconds of an image, and the most bytes at batch 1 and 2; a third of a step's, as a forward pass
        is, and its bytes, where time is over.
        """
        step = steps.seconds[0]
        training, dataset = self.training, self.spec.eval_set
        together = min(self.spec.feed.eval_batch, EVALUATED)
        count = min(EVALUATED, len(dataset))
        if not self.clock.holds(step * (count + 2)) or steps.size(0) >= self._free():
            return step / 3, (steps.size(0), steps.size(1))
        view = EvalView(dataset, self.spec.images.size)
        samples = [view[number * len(dataset) // count] for number in range(count)]

        def run(chosen: Sequence[Sample], batch: int) -> None:
            parts = [chosen[first : first + batch] for first in range(0, len(chosen), batch)]
            batches: list[Any] = [tuple(map(list, zip(*part, strict=True))) for part in parts]
            evaluate(training.eval_detector, batches, training.classes, training.precision)

        most = []
        for batch in BATCHES:
            with counted(training) as take:
                run(samples[:batch], batch)
                most.append(take()[1])
        return self._timed(lambda: run(samples, together)) / count, (most[0], most[1])

    def _step(self, parts: Sequence[Sample], side: int) -> None:
        images, targets = zip(*parts, strict=True)
        batch = self.training.detector.prepare(list(images), list(targets), (side, side))
        train_step(self.training, [batch])

    def _rehearsed(self, parts: Sequence[Sample], side: int) -> tuple[int, int, int]:
        """As :func:`.micro_batches.rehearse`, of two micro-batches of the same images."""
        images, targets = zip(*parts, strict=True)
        part = (list(images), list(targets))
        try:
            return rehearse(self.training, [part, part], side, backward)
        except torch.OutOfMemoryError:
            return 0, OUT_OF_MEMORY, OUT_OF_MEMORY
        finally:
            self.training.detector.zero_grad(set_to_none=True)

    def _crowded(self) -> list[int]:
        """The two images with most objects, where labels are known without drawing the images."""
        train_set = self.spec.train_set
        if not tells_targets(train_set):
            return self.typical[:2] * 2
        order = sorted(range(len(train_set)), key=lambda index: -len(flags_of(train_set, index)[0]))
        return order[:2] * 2

    def _free(self) -> float:
        """Bytes that may be used."""
        if self.training.device.type == "cuda":
            return float(torch.cuda.mem_get_info(self.training.device)[0])
        return MOST_OF_RAM * psutil.virtual_memory().available

    def _timed(self, work: Callable[[], Any]) -> float:
        """Seconds, until the device is done."""
        begun = time.perf_counter()
        work()
        if self.training.device.type == "cuda":
            torch.cuda.synchronize(self.training.device)
        return time.perf_counter() - begun
