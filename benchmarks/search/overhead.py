"""What a real search costs beside its trainings' epochs: two searches of all of ``rho`` with tiny trainings,
one trial at a time, one with shared beginnings and one without.

A trial's overhead is the time from its begin to its end, as the search says them, without the epochs that it
has trained itself; the gap is the time from one trial's end to the next one's begin.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbf_ray.config import Config, load_config
from dbf_ray.run.summary import machine, versions
from dbf_ray.search import search
from dbf_ray.shipped import find_shipped

BEGUN, ENDED = re.compile(r"trial (\d+) .*: (started|goes on)$"), re.compile(r"^\[\d+/\d+\] trial (\d+) ")
WANTED = {"trial": 5.0, "fork": 2.0}  # seconds at most


class Clock:
    """Takes a search's lines and notes when its trials began and ended."""

    def __init__(self) -> None:
        self.begun: dict[int, float] = {}
        self.ended: dict[int, float] = {}

    def __call__(self, line: str) -> None:
        """One line."""
        now = time.perf_counter()
        for pattern, into in ((BEGUN, self.begun), (ENDED, self.ended)):
            if found := pattern.search(line):
                into.setdefault(int(found[1]), now)

    def overheads(self, result: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row for each complete trial, by number."""
        rows = []
        for trial in result["trials"]:
            number = trial["number"]
            if number not in self.ended:
                continue
            before = [end for end in self.ended.values() if end <= self.begun[number]]
            lasted = self.ended[number] - self.begun[number]
            rows.append(
                {
                    "setting": [trial["policy"], trial["parameters"]],
                    "forked": trial.get("forked_from") is not None,
                    "own_epochs": trial["epochs_trained"],
                    "overhead": lasted - trial["own"]["wall_seconds"],
                    "gap": self.begun[number] - max(before) if before else None,
                }
            )
        return rows


def tiny(epochs: int) -> Config:
    """A training of a second: a few generated scenes at 64 pixels."""
    return load_config(
        None,
        {
            "data.train_images": 8,
            "data.val_images": 4,
            "data.image_size": 64,
            "detector.fpn_channels": 16,
            "detector.head_convs": 0,
            "training.epochs": epochs,
            "training.batch_size": 4,
            "training.threads": 1,
            "data.selection_fraction": 0.0,
            "tracking.mlflow": False,
        },
    )


def measure(epochs: int) -> dict[str, Any]:
    """Run both searches; rows of trials, and medians without each search's first, which starts a process."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, kept in (("alone", 0), ("shared", 16)):
            clock, begun = Clock(), time.perf_counter()
            config = tiny(epochs)
            config = config.model_copy(
                update={"search": config.search.model_copy(update={"kept_states": kept})}
            )
            result = search(
                config,
                find_shipped("search space", "rho"),
                study_name=name,
                trials=epochs + 1,
                concurrent=1,
                studies_dir=Path(folder),
                progress=clock,
            )
            found[name] = clock.overheads(result)
            found[f"{name}_seconds"] = time.perf_counter() - begun
            found[f"{name}_start_up"] = min(clock.begun.values()) - begun
    return {**found, **summary(found["alone"], found["shared"]), "machine": machine(), "versions": versions()}


def summary(alone: list[dict[str, Any]], shared: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds: ``trial``, the median overhead with its gap; ``fork``, the median of what a fork takes longer
    than the same setting without; ``first``, of the trial that starts a process.
    """
    straight = {str(row["setting"]): row["overhead"] for row in alone}
    forks = [row["overhead"] - straight[str(row["setting"])] for row in shared if row["forked"]]
    later = [row for row in (*alone[1:], *shared[1:]) if not row["forked"]]
    return {
        "trial": statistics.median(row["overhead"] + (row["gap"] or 0.0) for row in later),
        "fork": statistics.median(forks),
        "first": statistics.median([alone[0]["overhead"], shared[0]["overhead"]]),
    }


def text(result: Mapping[str, Any]) -> str:
    """The measurement in words."""
    lines = [
        f"overhead of a small trial: {result['trial']:.1f} s (wanted: {WANTED['trial']:.0f} or less); of the "
        f"first, which starts a process: {result['first']:.1f} s",
        f"a visit that forks: {result['fork']:+.1f} s over the same without (wanted: {WANTED['fork']:.0f} or "
        "less)",
    ]
    return "\n".join(lines)
