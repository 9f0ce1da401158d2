"""What a run tells its trackers, and the seconds that this takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from dbf_ray.tracking import Tracker
from dbf_ray.values import finite

TOTALS = (
    "executed_flops",
    "device_seconds",
    "data_wait_seconds",
    "wall_seconds",
    "allreduce_bytes",
    "energy_joules",
    "peak_memory_bytes",
    "mean_memory_bytes",
    "cache_seconds_saved",
)


class Telling:
    """Tells trackers; ``tracking_seconds`` of a record is what telling them the epoch before took."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers
        self._seconds = 0.0

    def start(self, config: dict[str, Any], facts: dict[str, Any], records: list[dict[str, Any]]) -> None:
        """The run begins, or goes on after ``records``."""
        begun = time.perf_counter()
        for tracker in self._trackers:
            tracker.start(config, facts, len(records))
            for record in records:
                tracker.epoch(finite(record))
        self._seconds += time.perf_counter() - begun

    def stamp(self, record: dict[str, Any]) -> None:
        """Note in an epoch's record when it ended, and the seconds of telling since the one before."""
        record |= {"time": time.time(), "tracking_seconds": self._seconds}
        self._seconds = 0.0

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is done."""
        begun = time.perf_counter()
        for tracker in self._trackers:
            tracker.epoch(record)
        self._seconds += time.perf_counter() - begun

    def finish(self, summary: dict[str, Any]) -> None:
        """The run is done."""
        for tracker in self._trackers:
            tracker.finish(summary)

    def fail(self, error: BaseException, reason: str) -> None:
        """The run stopped; by somebody's wish, where that is what the error says."""
        for tracker in self._trackers:
            tracker.fail(reason, isinstance(error, KeyboardInterrupt | SystemExit))


def tracking_of(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds inside tracker calls, and their share of the epochs' seconds."""
    seconds = sum(record.get("tracking_seconds") or 0.0 for record in records)
    wall = sum(record.get("wall_seconds") or 0.0 for record in records)
    return {"tracking_seconds": seconds, "tracking_share": seconds / wall if wall else 0.0}
