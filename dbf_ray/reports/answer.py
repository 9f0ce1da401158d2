"""What a study's trials tell in spite of chance, in numbers: for each trial and for the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dbf_ray.reports.objectives import Objectives
from dbf_ray.reports.statistics import (
    Draws,
    Floats,
    Measured,
    above_line,
    cheapest_within,
    draw,
    front_of,
    interval,
    knees,
    needed,
    on_front,
    posterior_means,
    within,
)
from dbf_ray.reports.trials import is_control, mean_of

Resampled = Mapping[int, Mapping[int, Floats]]
"""By trial and seed, its accuracy on each of the resampled sets of images."""

TOLERANCE = 0.005
CONFIDENCE = 0.9
KNEE = 0.5  # a knee has to be more probable than this
SECONDS = "device_seconds"
Row = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """What was found.

    Attributes:
        rows: complete trials.
        draws: of them, in the same order.
        knee: place of the probable knee, if there is one; ``likeliest`` of that which is it most often.
        pick: place of the cheapest that loses less than ``tolerance`` with CONFIDENCE, if there is one.
        full: place of the base's full fine-tuning, if it is complete.
        found: what pareto.json holds of all this.
    """

    rows: Sequence[Row]
    objectives: Objectives
    draws: Draws
    tolerance: float
    knee: int | None
    likeliest: int | None
    pick: int | None
    full: int | None
    found: dict[str, Any]


def measured(row: Mapping[str, Any], objectives: Objectives, resampled: Resampled) -> Measured:
    """What was measured of a complete trial: its own seed is 0, those of its repeats count from it."""
    first = row.get("seed") or 0
    runs = {0: row} | {entry["seed"] - first: entry for entry in row.get("seeds") or ()}
    points = {seed: point for seed, run in runs.items() if (point := objectives.point(run)) is not None}
    moved = {
        seed - first: values
        for seed, values in resampled.get(row["number"], {}).items()
        if seed - first in points and np.isfinite(values).all()
    }
    return Measured(
        float(np.mean([cost for _, cost in points.values()])),
        {seed: accuracy for seed, (accuracy, _) in points.items()},
        moved,
    )


def judge(
    rows: Sequence[Row], objectives: Objectives, resampled: Resampled, tolerance: float = TOLERANCE
) -> Judged:
    """Judge the complete trials of a study; each row gets what is known of it (docs/records.md).

    Args:
        rows: each with both objectives.
        objectives: by which they are compared.
        resampled: accuracies on resampled images, as far as known.
        tolerance: a loss of accuracy that does not matter.
    """
    draws = draw([measured(row, objectives, resampled) for row in rows])
    values, costs = draws.values, draws.costs
    if not len(rows):
        return Judged(rows, objectives, draws, tolerance, None, None, None, None, _nothing(tolerance))
    full = next((i for i, row in enumerate(rows) if row["policy"] == "full" and not is_control(row)), None)
    line = [i for i, row in enumerate(rows) if is_control(row) or i == full]
    low, high = interval(values + draws.common)
    knee_shares = knees(values, costs).mean(1)
    likeliest = int(knee_shares.argmax())
    knee = likeliest if knee_shares[likeliest] > KNEE else None
    pick = cheapest_within(draws, tolerance, CONFIDENCE)
    posterior = posterior_means(draws)
    shares = on_front(values, costs).mean(1)
    losses = within(values, tolerance)
    for place, row in enumerate(rows):
        row |= {
            "accuracy_mean": float(draws.center[place]),
            "accuracy_interval": [float(low[place]), float(high[place])],
            "accuracy_posterior": float(posterior[place]),
            "front_probability": float(shares[place]),
            "knee_probability": float(knee_shares[place]),
            "within_probability": float(losses[place]),
        }
    axes = dict.fromkeys(("compute_ratio", SECONDS, objectives.cost))
    for axis in axes if len(line) > 1 else ():
        at = costs if axis == objectives.cost else np.array([mean_of(row, axis) for row in rows])
        for row, share, gain in zip(rows, *above_line(draws, at, line), strict=True):
            if share is not None:
                above = row.setdefault("above_shorter", {})
                above[axis] = {"probability": share, "gain": gain}
    found = {
        "front_posterior": sorted(rows[place]["number"] for place in front_of(posterior, costs)),
        "knee": None if knee is None else rows[knee]["number"],
        "knee_probability": float(knee_shares[likeliest]),
        "within": {
            "tolerance": tolerance,
            "confidence": CONFIDENCE,
            "number": None if pick is None else rows[pick]["number"],
        },
        "controls": [rows[place]["number"] for place in sorted(line, key=lambda i: costs[i])]
        if len(line) > 1
        else [],
        "noise": _noise(draws, rows),
    }
    if is_noisy(draws) and (knee is None or pick is None):
        found["needed"] = {
            "knee": needed(draws, _knee_is_told) if knee is None else None,
            "within": None
            if pick is not None
            else needed(draws, lambda more: cheapest_within(more, tolerance, CONFIDENCE) is not None),
        }
    return Judged(rows, objectives, draws, tolerance, knee, likeliest, pick, full, found)


def is_noisy(draws: Draws) -> bool:
    """Whether anything is known of chance."""
    return bool(draws.images.any()) or draws.seed_sd is not None


def _knee_is_told(draws: Draws) -> bool:
    return bool(knees(draws.values, draws.costs).mean(1).max() > KNEE)


def _noise(draws: Draws, rows: Sequence[Row]) -> dict[str, Any]:
    """Standard deviations of one training by seeds, and of differences to the best by images."""
    best = int(draws.center.argmax())
    moved = np.delete(draws.images - draws.images[best], best, axis=0)
    return {
        "seeds": max(1 + len(row.get("seeds") or ()) for row in rows),
        "seed_sd": draws.seed_sd,
        "freedom": draws.freedom,
        "images_known": draws.images_known,
        "image_sd_of_differences": float(moved.std()) if moved.size and draws.images.any() else None,
    }


def _nothing(tolerance: float) -> dict[str, Any]:
    return {
        "front_posterior": [],
        "knee": None,
        "knee_probability": None,
        "within": {"tolerance": tolerance, "confidence": CONFIDENCE, "number": None},
        "controls": [],
        "noise": {},
    }
