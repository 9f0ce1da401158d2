"""The two numbers by which a study compares its trials: an accuracy, more of which is better, and a cost,
less of which is better; each under the name that it has in a trial's row. And what these names mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Point = tuple[float, float]
TITLES = {
    "map50": "AP at IoU 0.5 after the last epoch (fraction)",
    "map75": "AP at IoU 0.75 after the last epoch (fraction)",
    "map50_95": "mean AP at IoU 0.5 to 0.95 after the last epoch (fraction)",
    "merged/map50": "AP at IoU 0.5 on merged patches after the last epoch (fraction)",
    "accuracy": "accuracy that the training function reports after the last epoch",
    "compute_ratio": "nominal training FLOPs / those of full fine-tuning",
    "seconds_ratio": "timed seconds of training steps / those of full fine-tuning",
    "device_seconds": "measured seconds of training steps, over all workers",
    "energy_joules": "measured energy of the devices (J)",
    "peak_memory_bytes": "measured peak memory of a worker (bytes)",
}
NOUNS = {
    "compute_ratio": "training compute",
    "seconds_ratio": "training time",
    "device_seconds": "training time",
    "energy_joules": "energy",
    "peak_memory_bytes": "peak memory",
}


@dataclass(frozen=True)
class Objectives:
    """Names of keys of a row.

    Attributes:
        accuracy: such as map50.
        cost: such as compute_ratio.
    """

    accuracy: str = "map50"
    cost: str = "compute_ratio"

    def names(self) -> tuple[str, str]:
        """Accuracy, then cost."""
        return self.accuracy, self.cost

    def point(self, row: Mapping[str, Any]) -> Point | None:
        """(accuracy, cost) of a row; None where one of them is missing or not finite."""
        accuracy, cost = (_number(row.get(name)) for name in self.names())
        return None if accuracy is None or cost is None else (accuracy, cost)

    def directions(self) -> dict[str, str]:
        """As pareto.json has them."""
        return {self.accuracy: "maximize", self.cost: "minimize"}


USUAL = Objectives()


def objectives_of(result: Mapping[str, Any]) -> Objectives:
    """Those of a study's result."""
    accuracy, cost = result["objectives"]
    return Objectives(accuracy, cost)


def title(name: str) -> str:
    """The title of an axis: the name, and what it says in which unit."""
    one_class = f"AP at IoU 0.5 of {name.partition('/')[2]} after the last epoch (fraction)"
    said = one_class if name.startswith("ap50/") else TITLES.get(name)
    return name if said is None else f"{name}: {said}"


def noun(cost: str) -> str:
    """What a cost counts, in words."""
    return NOUNS.get(cost, cost)


def in_figures(name: str, value: float | None, digits: int = 3) -> str:
    """A value of an objective as text, with its unit where it is no fraction; ``-`` without one."""
    if value is None:
        return "-"
    if name == "device_seconds":
        return f"{value:.1f} s"
    if name == "energy_joules":
        return f"{value / 1e3:.2f} kJ"
    if name == "peak_memory_bytes":
        return f"{value / 1e9:.3f} GB"
    return f"{value:.{digits}f}"


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
