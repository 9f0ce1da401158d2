"""The ledger: what a training really cost, epoch by epoch and in total.

Each figure, over all ranks unless it says otherwise:

====================  ====================================================================================
executed_flops        training FLOPs (forward and backward) of the images that ran, by padded shape and frozen
                      prefix, with everything that was repeated after a restart, and the backbone's forward
                      passes over probe images of adaptive policies, less those of frozen prefixes whose
                      features came from the cache; no evaluation, optimizer, NMS. Not to be mixed with the
                      nominal compute_ratio.
device_seconds        seconds of training steps, waiting for data included, summed over ranks: what the
                      devices were held for.
data_wait_seconds     the part of device_seconds that waited for data.
data_wait_share       data_wait_seconds over device_seconds.
wall_seconds          seconds from an epoch's begin to its end, evaluation included, of the slowest rank.
images_per_second     images trained over seconds of training steps (of the slowest rank).
peak_memory_bytes     largest memory of any one rank during training steps; what memory is on which device:
                      PeakMemory.
mean_memory_bytes     mean over the time of training steps of each step's peak, and over ranks. Steps of
                      frozen epochs need less: the mean shows it, the peak of a run with one unfrozen epoch
                      does not.
allreduce_bytes       bytes of gradients that *one* rank handed to all-reduce, as the communication hook
                      counted them; 0 with one rank.
energy_joules         energy of the ranks' devices during training steps, or None where no device answers.
                      Ranks should not share a device.
cache_hits            images whose frozen features came from the cache,
cache_misses          and those for which they had to be computed.
cache_bytes           what the feature cache held at the end of the epoch; of the run, the most that it held.
cache_seconds_saved   seconds that the hits would have taken to compute, by those that misses took, less the
                      seconds for keeping and looking up.
====================  ====================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dbf_ray.cost.energy import EnergyMeter
from dbf_ray.cost.flops import FlopTable
from dbf_ray.cost.journal import Journal
from dbf_ray.cost.memory import PeakMemory

Row = dict[str, Any]
ADDED = ("executed_flops", "device_seconds", "data_wait_seconds", "wall_seconds", "allreduce_bytes")
CACHE = ("cache_hits", "cache_misses", "cache_seconds_saved")


class Ledger:
    """Adds up what training costs. Looking costs some tens of microseconds a step and never waits for the
    device.

    Use: ``begin_epoch``; for each step ``add_wait`` and ``step``; ``end_steps`` before evaluation;
    ``end_epoch``.

    Args:
        detector: the detector, for its FLOPs (a meta copy is taken), its :class:`FlopTable`, or any function
            of (height, width, num_frozen) to FLOPs per image.
        device: where training runs.
        world_size: number of ranks.
        gather: collective that gives every rank the objects of all ranks, in rank order. None: the other
            ranks are taken to cost what this one does.
        journal: file for work in progress, given on rank 0 only; None: what a killed attempt did after its
            last checkpoint is not counted.
    """

    def __init__(
        self,
        detector: nn.Module | Callable[[int, int, int], int],
        *,
        device: torch.device | str = "cpu",
        world_size: int = 1,
        gather: Callable[[Any], Sequence[Any]] | None = None,
        journal: Path | None = None,
    ) -> None:
        self._flops = FlopTable(detector) if isinstance(detector, nn.Module) else detector
        self._device = torch.device(device)
        self._world_size = world_size
        self._gather = gather or (lambda row: [row] * world_size)
        self._memory, self._energy = PeakMemory(device), EnergyMeter(device)
        self._journal = Journal(journal) if journal is not None else None
        self._attempt = 1
        self._resumed = False
        self._accounted: list[list[int]] = []
        self._totals, self._own = _no_cost(), _no_cost()
        self._reduced = 0  # the wrappers' counter when the last epoch ended
        self._joules: float | None = None  # the device's counter when this epoch began
        self._used: float | None = None  # of this epoch's steps, once they are over
        self._clear(0)

    def begin_epoch(self, epoch: int) -> None:
        """Start the clocks of an epoch (0-based)."""
        if self._journal is not None and not self._resumed and not self._accounted:
            self._journal.clear()
        self._clear(epoch)
        self._memory.take()
        self._joules = self._energy.joules()
        self._began = self._mark = time.perf_counter()

    def add_wait(self, seconds: float) -> None:
        """Add seconds that the coming step waited for its data."""
        self._waited += seconds

    def step(self, images: int, size: tuple[int, int], num_frozen: int) -> None:
        """Add images of one padded ``size`` (height, width) in pixels that were trained with ``num_frozen``
        stages frozen.

        Call it after the optimizer step, once for each micro-batch; the time since the last call is the
        step's.
        """
        key = (*size, num_frozen)
        self._images[key] = self._images.get(key, 0) + images
        self._tick()
        if self._journal is not None and self._journal.due():
            self._journal.write(self._attempt, self._epoch, self._spent())

    def add_probe(self, images: int, size: tuple[int, int]) -> None:
        """Add a forward pass of the backbone alone over images of one padded ``size`` (height, width) in
        pixels; its time is the coming step's.
        """
        self._looks[size] = self._looks.get(size, 0) + images

    def add_cache_use(self, hits: int, misses: int, size: tuple[int, int], num_frozen: int) -> None:
        """Add images of one padded ``size`` (height, width) whose frozen features came from the cache, and
        others for which they did not.
        """
        key = (*size, num_frozen)
        if hits:
            self._hits[key] = self._hits.get(key, 0) + hits
        self._misses += misses

    def cache_holds(self, held_bytes: int, seconds_saved: float) -> None:
        """The feature cache's bytes now, and the seconds that it saved in this epoch."""
        self._cache_bytes, self._seconds_saved = held_bytes, seconds_saved

    def end_steps(self) -> None:
        """The epoch's training steps are over (evaluation may follow): wait for the device, and count that
        time too.
        """
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._tick()
        self._used = self._energy_used()

    def images_per_second(self) -> float:
        """Images of all ranks per second of training steps so far in this epoch; 0 before the first step."""
        return sum(self._images.values()) * self._world_size / self._seconds if self._seconds > 0 else 0.0

    def end_epoch(self, *, allreduce_bytes: int = 0) -> Row:
        """Close the epoch. A collective if ``gather`` is one.

        Args:
            allreduce_bytes: the wrappers' counter, which only rises; the ledger takes the difference.

        Returns:
            The epoch's costs by the names above, equal on all ranks.
        """
        own = {**self._spent(), "allreduce_bytes": allreduce_bytes - self._reduced}
        self._reduced = allreduce_bytes
        if self._journal is not None:
            self._journal.write(self._attempt, self._epoch, own)
        cost = self._combine(list(self._gather(own)))
        self._accounted.append([self._attempt, self._epoch])
        self._add(cost)
        return self._shown(cost)

    def totals(self) -> Row:
        """Costs of the whole run so far, repeats included, by the names above; ``attempts`` counts the
        starts.
        """
        shown = self._shown(self._totals)
        shown["attempts"] = shown.pop("attempt")
        return shown

    def own(self) -> Row:
        """What of the added-up costs was not inherited."""
        shown = self._shown(self._own)
        return {key: shown[key] for key in (*ADDED, "energy_joules")}

    def state_dict(self) -> Row:
        """Plain JSON values, for a checkpoint."""
        return {
            "attempt": self._attempt,
            "accounted": [list(pair) for pair in self._accounted],
            "totals": dict(self._totals),
            "own": dict(self._own),
        }

    def load_state_dict(self, state: Row, inherit: bool = False) -> None:
        """Go on from a checkpoint as the next attempt. What the journal knows of later work, which will be
        repeated, is added now.

        A collective if ``gather`` is one. What a lost epoch cost is rank 0's, taken for all ranks; its
        all-reduced bytes are not known.

        Args:
            state: of :meth:`state_dict`.
            inherit: it is another run's: its costs are part of the totals, not of :meth:`own`, and its
                attempts are none of this run.
        """
        self._totals = dict(state["totals"])
        self._own = _no_cost() if inherit else dict(state["own"])
        self._accounted = [] if inherit else [list(pair) for pair in state["accounted"]]
        own = self._journal.read() if self._journal is not None else {}
        lost: dict[tuple[int, int], Row] = next((found for found in self._gather(own) if found), {})
        for (attempt, epoch), spent in lost.items():
            if [attempt, epoch] not in self._accounted:
                self._accounted.append([attempt, epoch])
                self._add(self._combine([spent] * self._world_size))
        attempts = [0 if inherit else state["attempt"], *(attempt for attempt, _ in self._accounted)]
        self._attempt = max(attempts) + 1
        self._resumed = True

    def _clear(self, epoch: int) -> None:
        self._epoch = epoch
        self._images: dict[tuple[int, int, int], int] = {}
        self._looks: dict[tuple[int, int], int] = {}
        self._hits: dict[tuple[int, int, int], int] = {}
        self._misses = self._cache_bytes = 0
        self._seconds_saved = 0.0
        self._seconds = self._waited = self._memory_seconds = 0.0
        self._peak = 0
        self._joules = self._used = None
        self._began = self._mark = time.perf_counter()

    def _energy_used(self) -> float | None:
        joules = self._energy.joules()
        return None if joules is None or self._joules is None else joules - self._joules

    def _tick(self) -> None:
        now, peak = time.perf_counter(), self._memory.take()
        self._seconds += now - self._mark
        self._memory_seconds += peak * (now - self._mark)
        self._peak = max(self._peak, peak)
        self._mark = now

    def _table(self) -> FlopTable:
        assert isinstance(self._flops, FlopTable), (
            "a ledger that counts forward passes of a backbone needs the detector"
        )
        return self._flops

    def _spent(self) -> Row:
        """This rank's epoch so far, as plain JSON values."""
        return {
            "images": [[*key, count] for key, count in self._images.items()],
            "looks": [[*key, count] for key, count in self._looks.items()],
            "hits": [[*key, count] for key, count in self._hits.items()],
            "cache_misses": self._misses,
            "cache_bytes": self._cache_bytes,
            "cache_seconds_saved": self._seconds_saved,
            "device_seconds": self._seconds,
            "data_wait_seconds": self._waited,
            "wall_seconds": time.perf_counter() - self._began,
            "allreduce_bytes": 0,
            "peak_memory_bytes": self._peak,
            "memory_seconds": self._memory_seconds,
            "energy_joules": self._energy_used() if self._used is None else self._used,
        }

    def _combine(self, rows: list[Row]) -> Row:
        """The ranks' rows as one."""
        images = [(h, w, n, count) for row in rows for h, w, n, count in row["images"]]
        looks = [(h, w, count) for row in rows for h, w, count in row["looks"]]
        hits = [(h, w, n, count) for row in rows for h, w, n, count in row["hits"]]
        joules = [row["energy_joules"] for row in rows]
        return {
            "executed_flops": sum(self._flops(h, w, n) * count for h, w, n, count in images)
            + sum(self._table().backbone_forward(h, w) * count for h, w, count in looks)
            - sum(self._table().prefix_forward(h, w, n) * count for h, w, n, count in hits),
            "cache_hits": sum(count for *_, count in hits),
            "cache_misses": sum(row["cache_misses"] for row in rows),
            "cache_bytes": sum(row["cache_bytes"] for row in rows),
            "cache_seconds_saved": sum(row["cache_seconds_saved"] for row in rows),
            "images": sum(count for *_, count in images),
            "device_seconds": sum(row["device_seconds"] for row in rows),
            "slowest_seconds": max(row["device_seconds"] for row in rows),
            "data_wait_seconds": sum(row["data_wait_seconds"] for row in rows),
            "wall_seconds": max(row["wall_seconds"] for row in rows),
            "allreduce_bytes": max(row["allreduce_bytes"] for row in rows),
            "peak_memory_bytes": max(row["peak_memory_bytes"] for row in rows),
            "memory_seconds": sum(row["memory_seconds"] for row in rows),
            "energy_joules": None if None in joules else sum(joules),
        }

    def _add(self, cost: Row) -> None:
        for sums in (self._totals, self._own):
            for key in (*ADDED, *CACHE, "images", "slowest_seconds", "memory_seconds"):
                sums[key] += cost[key]
            for key in ("peak_memory_bytes", "cache_bytes"):
                sums[key] = max(sums[key], cost[key])
            if cost["energy_joules"] is not None:
                sums["energy_joules"] = (sums["energy_joules"] or 0.0) + cost["energy_joules"]

    def _shown(self, cost: Row) -> Row:
        return {
            **{key: cost[key] for key in ADDED},
            "data_wait_share": cost["data_wait_seconds"] / cost["device_seconds"]
            if cost["device_seconds"] > 0
            else 0.0,
            **{key: cost[key] for key in (*CACHE, "cache_bytes")},
            "images_per_second": cost["images"] / cost["slowest_seconds"]
            if cost["slowest_seconds"] > 0
            else 0.0,
            "peak_memory_bytes": cost["peak_memory_bytes"],
            "mean_memory_bytes": round(cost["memory_seconds"] / cost["device_seconds"])
            if cost["device_seconds"] > 0
            else 0,
            "energy_joules": cost["energy_joules"],
            "attempt": self._attempt,
        }


def _no_cost() -> Row:
    counts: Row = dict.fromkeys(
        (
            "executed_flops",
            "images",
            "allreduce_bytes",
            "peak_memory_bytes",
            "cache_hits",
            "cache_misses",
            "cache_bytes",
        ),
        0,
    )
    times = dict.fromkeys(
        (
            "device_seconds",
            "slowest_seconds",
            "data_wait_seconds",
            "wall_seconds",
            "memory_seconds",
            "cache_seconds_saved",
        ),
        0.0,
    )
    return {**counts, **times, "energy_joules": None}
