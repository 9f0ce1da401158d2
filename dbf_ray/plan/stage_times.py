"""Real steps with each number of frozen stages, with and without cached features: what a schedule will take
in seconds and memory, before it is trained.

The ways take turns, so that a machine that slows down slows all of them. As in :mod:`.measured`, which it
goes on from, nothing is kept, and graphs are not compiled.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from dbf_ray.config import Config, to_dict
from dbf_ray.cost import Stretch
from dbf_ray.data import TrainView
from dbf_ray.detectors import Batch
from dbf_ray.detectors.base import SIZE_DIVISOR
from dbf_ray.plan.costs import Costs
from dbf_ray.plan.measured import SHRINK, Clock, Measurement, measured_config, measuring
from dbf_ray.training.loop import autocast, backward, common_pad_to, train_step
from dbf_ray.training.micro_batches import OUT_OF_MEMORY, MicroBatch, MicroBatches, merged, rehearse

ROUNDS = (2, 5)  # in which each way has its turn, at least and at most; one before them is not timed
LIMIT = 60.0  # seconds after which no further round is begun
FORECAST_LIMIT = 20.0  # the same for a forecast alone
RUN_BY = ("engine", "engine_precision", "engine_compile", "cache", "cache_dtype", "cache_gb", "cache_dir")


@dataclass(frozen=True)
class Way:
    """So many frozen stages, and whether their features come from the cache."""

    prefix: int
    cached: bool


@dataclass(frozen=True)
class StageTimes:
    """Figures of real steps, of one worker.

    Attributes:
        plain: seconds of an optimizer step with the first 0..K stages frozen, images being loaded.
        cached: the same where all features of frozen stages come from the cache; empty without one.
        step_bytes: of tensors, the most in a step with 0..K frozen, as ``training.micro_batch_gb`` measures
            it.
        images: in a step.
        rounds: how often each way was timed.
        whole: whether steps were whole; else they were of one image of a quarter of the side, for lack of
            time or memory: shares of the step that ``costs`` knows, whose bytes grow with the pixels.
        costs: of loading and evaluating.
    """

    plain: tuple[float, ...]
    cached: tuple[float, ...]
    step_bytes: tuple[int, ...]
    images: int
    rounds: int
    whole: bool
    costs: Costs

    def step_seconds(self, prefix: int, hits: float = 0.0) -> float:
        """Of an optimizer step, loading included.

        Args:
            prefix: frozen stages.
            hits: share of images whose features come from the cache.
        """
        computing = self.plain[prefix]
        if hits and self.cached:
            computing = hits * self.cached[prefix] + (1 - hits) * computing
        return self.costs.with_loading(computing, self.images)

    def seconds(self, part: Stretch) -> float:
        """Of the training steps of a stretch."""
        return part.steps * self.step_seconds(part.prefix, part.hits)

    def training_seconds(self, parts: Sequence[Stretch], evaluations: int, workers: int = 1) -> float:
        """Of one training by so many workers with its evaluations."""
        steps = sum(map(self.seconds, parts))
        return (
            self.costs.first_seconds(workers)
            + steps
            + evaluations * self.costs.evaluation_seconds_of(workers)
        )

    def memory(self, parts: Sequence[Stretch]) -> int:
        """Bytes of tensors, the most of a training."""
        return max(self.step_bytes[part.prefix] for part in parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> StageTimes:
        """Undo of :meth:`as_dict`, after a way through JSON."""
        return TypeAdapter(cls).validate_python(values)


def time_stages(config: Config, limit: float = LIMIT) -> StageTimes:
    """Time real steps of a training, for each number of frozen stages.

    Args:
        config: detector, data, batch, optimizer, precision, device, threads, engine and cache; of several
            workers, one with its share of a batch.
        limit: seconds after which no further round is begun.

    Raises:
        DbfRayError: the data or the configuration cannot be used.
    """
    clock = Clock(limit)
    freezing = {key: value for key, value in to_dict(config)["freezing"].items() if key in RUN_BY}
    with (
        tempfile.TemporaryDirectory() as folder,
        measuring(config, measured_config(config, freezing), Path(folder)) as (spec, training),
    ):
        taken = _StageMeasurement(spec, training, clock, several=config.cluster.workers > 1)
        found = taken.stage_times(config)
        if training.frozen is not None:
            training.frozen.close()
        del training, taken
    return found


class _StageMeasurement(Measurement):
    """One measurement, within the time of ``clock``."""

    def stage_times(self, config: Config) -> StageTimes:
        """What is found in time."""
        train, stages, costs = config.training, self.training.detector.backbone.num_stages, self.costs()
        images, ways = train.batch_size // config.cluster.workers, self._ways()
        part, several = images // train.accumulation, train.accumulation > 1
        step = images * costs.step_seconds[1] / 2
        whole = costs.bytes_of(part, train.accumulation) < self._free() and self.clock.holds(
            (ROUNDS[0] + 1) * len(ways) * step
        )
        if whole and several and train.micro_batch_gb is not None:
            self.training.micro_batches = MicroBatches(round(train.micro_batch_gb * 1e9), self.side)
        size = self.spec.images.size
        side = size if whole else -(-size // SHRINK // SIZE_DIVISOR) * SIZE_DIVISOR
        parts = self._parts(part, train.accumulation, side) if whole else self._parts(1, 1, side)
        times, most = self._turns(ways, parts, self.side if whole else side)
        pixels = 1.0 if whole else images * (size / side) ** 2
        took = {way: statistics.median(times[way]) for way in ways}
        scale = 1.0 if whole else step / took[ways[0]]
        plain = {way.prefix: scale * took[way] for way in ways if not way.cached}
        cached = {way.prefix: scale * took[way] for way in ways if way.cached}
        grown = 1.0 if whole else pixels / train.accumulation
        prepared = 0 if whole else 3 * 4 * (images * size**2 - side**2)  # as float32
        peaks = {n: min(OUT_OF_MEMORY, self._peak(found, grown) + prepared) for n, found in most.items()}
        return StageTimes(
            plain=by_prefix(plain, stages),
            cached=by_prefix(plain | cached, stages) if cached else (),
            step_bytes=by_prefix(peaks, stages),
            images=images,
            rounds=len(times[ways[0]]),
            whole=whole,
            costs=costs,
        )

    def _peak(self, found: tuple[int, int, int], pixels: float) -> int:
        """Bytes at the most, where what grows in a pass does so with the pixels."""
        fixed, grown, most = found
        return self.copied + (most if pixels == 1 else fixed + round(pixels * grown))

    def _ways(self) -> list[Way]:
        frozen, backbone = self.training.frozen, self.training.detector.backbone
        prefixes = range(backbone.always_frozen, backbone.num_stages + 1)
        kept = frozen is not None and frozen.cache is not None
        return [Way(n, cached) for n in prefixes for cached in (False, True) if not cached or (kept and n)]

    def _parts(self, images: int, count: int, side: int) -> list[MicroBatch]:
        """The micro-batches of a step, of images spread over the training set."""
        train_set = self.spec.train_set
        view = self.view
        if side < self.spec.images.size:
            view = TrainView(train_set, side, self.spec.images.flips, self.spec.seed)
        chosen = [number * len(train_set) // (images * count) for number in range(images * count)]
        samples = [view[0, index] for index in chosen]
        rows = [samples[first : first + images] for first in range(0, len(samples), images)]
        return [([image for image, _ in row], [target for _, target in row]) for row in rows]

    def _turns(
        self, ways: Sequence[Way], parts: Sequence[MicroBatch], side: int
    ) -> tuple[dict[Way, list[float]], dict[int, tuple[int, int, int]]]:
        """Seconds of each way's steps, and what :func:`.micro_batches.rehearse` gives, by prefix."""
        times: dict[Way, list[float]] = {way: [] for way in ways}
        most: dict[int, tuple[int, int, int]] = {}
        for turn in range(1 + ROUNDS[1]):
            begun = time.perf_counter()
            for way in ways:
                self._ready(way, parts)
                took = self._timed(functools.partial(self._train, way, parts))
                if turn:
                    times[way].append(took)
                elif not way.cached:
                    most[way.prefix] = self._most(parts, side)
            if turn >= ROUNDS[0] and not self.clock.holds(time.perf_counter() - begun):
                break
        return times, most

    def _ready(self, way: Way, parts: Sequence[MicroBatch]) -> None:
        """Freeze, make the engine and fill the cache, which happens once in a frozen span."""
        training = self.training
        training.scheduler.freezer.apply(way.prefix)
        training.detector.train()
        if training.frozen is not None and way.prefix:
            with torch.no_grad(), autocast(training.device, training.precision):
                for batch in self._batches(way, parts):
                    training.frozen(batch)

    def _train(self, way: Way, parts: Sequence[MicroBatch]) -> None:
        merging = self.training.micro_batches
        train_step(self.training, self._batches(way, parts))
        if merging is not None and way.prefix not in merging.counts:
            merging.choose(self.training, parts, backward)

    def _batches(self, way: Way, parts: Sequence[MicroBatch]) -> list[Batch]:
        """A step's micro-batches, merged as they would be; without orientations nothing is looked up or
        kept.
        """
        detector, together = self.training.detector, self._merged(parts)
        pad_to = common_pad_to([image for images, _ in together for image in images], self.training.device)
        batches = [detector.prepare(images, targets, pad_to) for images, targets in together]
        return batches if way.cached else [dataclasses.replace(one, orientations=None) for one in batches]

    def _merged(self, parts: Sequence[MicroBatch]) -> Sequence[MicroBatch]:
        merging = self.training.micro_batches
        count = None if merging is None else merging.counts.get(self.training.scheduler.num_frozen)
        return parts if count is None else merged(parts, count)

    def _most(self, parts: Sequence[MicroBatch], side: int) -> tuple[int, int, int]:
        try:
            return rehearse(self.training, self._merged(parts), side, backward)
        except torch.OutOfMemoryError:
            return 0, OUT_OF_MEMORY, OUT_OF_MEMORY
        finally:
            self.training.detector.zero_grad(set_to_none=True)


def by_prefix(found: Mapping[int, Any], num_stages: int) -> tuple[Any, ...]:
    """Of each prefix 0..K; of those that never are, since more is always frozen, the first there is."""
    return tuple(found[max(n, min(found))] for n in range(num_stages + 1))
