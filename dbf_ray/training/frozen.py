"""What a frozen prefix gives for a batch: from the cache where it is known, else from the inference engine,
else from the backbone itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dbf_ray.cost import Ledger
from dbf_ray.detectors import Batch, Detector
from dbf_ray.detectors.backbones import FrozenFeatures
from dbf_ray.detectors.backbones.engine import PrefixEngine, prefix_state
from dbf_ray.detectors.backbones.staged import empty_batch
from dbf_ray.freezing.cache import FeatureCache, Key, fingerprint_of


@dataclass(frozen=True)
class EngineOptions:
    """How the engine computes: in bf16 or float32, compiled or not."""

    dtype: torch.dtype = torch.float32
    compiled: bool = False


class FrozenPrefix:
    """Call it with every micro-batch that is trained, under the training's autocast.

    Engine and cached features belong to one prefix with one set of weights. That these have not moved is
    looked at before each use, by the tensors' version counters; where they were written to, by their bits.

    Args:
        detector: its backbone's ``num_frozen`` says what is frozen.
        ledger: hears of hits and misses, and at an epoch's end of seconds and bytes.
        engine: None: the prefix runs as it is.
        cache: None: nothing is kept.
        facts: whatever features depend on beside the prefix with its weights, the normalisation, the images'
            names, their orientation and padded size.
    """

    def __init__(
        self,
        detector: Detector,
        ledger: Ledger,
        engine: EngineOptions | None = None,
        cache: FeatureCache | None = None,
        facts: tuple[object, ...] = (),
    ) -> None:
        self.backbone, self.device = detector.backbone, detector.mean.device
        self._normalisation = (detector.mean, detector.std)
        self.ledger, self.options, self.cache, self.facts = ledger, engine, cache, facts
        # by prefix; one at a time, but what is compiled is kept for the next frozen span
        self._engines: dict[int, PrefixEngine] = {}
        # whether the prefix has run before, so that its time is not that of compiling and choosing kernels
        self._warm = False
        self._versions: tuple[int, ...] = ()
        self._fingerprint = ""
        self._like: FrozenFeatures | None = None  # empty tensors of the features' dtypes
        self._run_clock, self._cache_clock = Stopwatch(self.device), Stopwatch(self.device)
        self._hits = self._timed = 0
        self._seconds_an_image = 0.0  # that the prefix takes, as last measured; 0: not yet

    @property
    def engine(self) -> PrefixEngine | None:
        """The engine of the prefix in force, if there is one."""
        return self._engines.get(self.backbone.num_frozen)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its frozen features; as it is where nothing is frozen or the backbone does it
        itself.
        """
        if self.backbone.num_frozen == 0:
            self._versions, self._fingerprint = (), ""
            if self.options is None or not self.options.compiled:
                self._engines.clear()
            if self.cache is not None:
                self.cache.drop()
            return batch
        if self.options is None and self.cache is None:
            return batch
        self._refresh()
        if self.cache is None or batch.orientations is None:
            return replace(batch, frozen=self._run(batch.images))
        return replace(batch, frozen=self._from_cache(self.cache, batch, batch.orientations))

    def end_epoch(self) -> None:
        """Tell the ledger what the cache holds and how much time it saved, after the epoch's steps and after
        waiting for the device.
        """
        ran, spent = self._run_clock.take(), self._cache_clock.take()
        if self._timed:
            self._seconds_an_image = ran / self._timed
        if self.cache is not None:
            saved = self._hits * self._seconds_an_image - spent if self._seconds_an_image else 0.0
            self.ledger.cache_holds(self.cache.bytes, saved)
        self._hits = self._timed = 0

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps: the seconds that an image takes, by which later hits are valued."""
        return {"seconds_an_image": self._seconds_an_image}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Undo of :meth:`state_dict`."""
        self._seconds_an_image = state["seconds_an_image"]

    def close(self) -> None:
        """The training is over: the cache is not needed any more."""
        if self.cache is not None:
            self.cache.close()

    def _refresh(self) -> None:
        state, prefix = [*self._normalisation, *prefix_state(self.backbone)], self.backbone.num_frozen
        versions = (prefix, *(tensor._version for tensor in state))
        if versions == self._versions:
            return
        self._versions = versions
        # with what is no tensor, as a norm's eps or a convolution's stride
        structure = repr(self.backbone.stages[:prefix])
        fingerprint = fingerprint_of(
            state, prefix, structure, self.backbone.read_from, self.backbone.float32_stages, *self.facts
        )
        if fingerprint == self._fingerprint:
            return
        self._fingerprint, self._like = fingerprint, None
        self._warm = False
        if self.options is not None:
            if not self.options.compiled:
                self._engines.clear()
            if self.engine is None:
                self._engines[self.backbone.num_frozen] = PrefixEngine(
                    self.backbone, self.options.dtype, "inductor" if self.options.compiled else None
                )
            else:
                self.engine.refresh(self.backbone)
        if self.cache is not None:
            self.cache.begin(fingerprint)

    def _run(self, images: Tensor) -> FrozenFeatures:
        return self.backbone.frozen_features(images) if self.engine is None else self.engine(images)

    def _run_timed(self, images: Tensor) -> FrozenFeatures:
        if not self._warm:
            self._warm = True
            return self._run(images)
        self._timed += len(images)
        with self._run_clock:
            return self._run(images)

    def _from_cache(
        self, cache: FeatureCache, batch: Batch, orientations: list[tuple[str, str]]
    ) -> FrozenFeatures:
        with self._cache_clock:
            keys = [Key(image, orientation, batch.padded) for image, orientation in orientations]
            found = [cache.get(key) for key in keys]
        missing = [index for index, maps in enumerate(found) if maps is None]
        computed = None
        if missing:
            computed = self._run_timed(batch.images if len(missing) == len(keys) else batch.images[missing])
            self._like = computed.map(lambda part: part.new_empty(0))
            with self._cache_clock:
                for row, index in enumerate(missing):
                    cache.put(keys[index], [part[row] for part in computed.tensors()])
                computed = computed.map(cache.as_kept)
        hits = len(keys) - len(missing)
        self._hits += hits
        self.ledger.add_cache_use(hits, len(missing), batch.padded, self.backbone.num_frozen)
        if computed is not None and not hits:
            return computed
        if self._like is None:  # all are known from before a restart
            self._like = self._run(batch.images[:1]).map(lambda part: part.new_empty(0))
        with self._cache_clock:
            return joined(found, computed, missing, self._like)


def joined(
    found: list[list[Tensor] | None],
    computed: FrozenFeatures | None,
    missing: list[int],
    like: FrozenFeatures,
) -> FrozenFeatures:
    """Features of a batch from those of its images: ``found`` [C, H, W] each, and ``computed`` [missing, C,
    H, W] for the ``missing`` ones; with the maps of ``like``, in their dtypes and on their device.
    """
    whole = []
    for number, wanted in enumerate(like.tensors()):
        known = [(index, maps[number]) for index, maps in enumerate(found) if maps is not None]
        one, cuda = known[0][1], wanted.device.type == "cuda"
        batch = empty_batch(one, len(found), one.dtype if cuda else wanted.dtype)
        for index, part in known:
            batch[index] = part
        if cuda:
            batch = batch.pin_memory().to(wanted.device, non_blocking=True).to(wanted.dtype)
        if computed is not None:
            batch[torch.tensor(missing, device=wanted.device)] = computed.tensors()[number]
        whole.append(batch)
    return like.filled(whole)


class Stopwatch:
    """Adds up the seconds spent within it, on a GPU those of its stream; nothing waits for the device before
    :meth:`take`.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._began = 0.0

    def __enter__(self) -> None:
        if self._cuda:
            self._events.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
            self._events[-1][0].record()
        else:
            self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            self._events[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._began

    def take(self) -> float:
        """Seconds so far, and start anew; call it when the device is done."""
        total = self._seconds + sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
        self._seconds, self._events = 0.0, []
        return total
