"""The two numbers by which a study compares its trials: an accuracy, more of which is better, and a cost,
less of which is better; each under the name that it has in a trial's row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Point = tuple[float, float]


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


def objectives_of(result: Mapping[str, Any]) -> Objectives:
    """Those of a study's result."""
    accuracy, cost = result["objectives"]
    return Objectives(accuracy, cost)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
