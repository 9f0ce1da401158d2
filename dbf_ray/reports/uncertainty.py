"""What chance leaves open, in the picture of a trade-off: intervals, the front that is believed, and the line
of shorter full trainings. First the plain data, then what draws it in the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dbf_ray.reports.objectives import objectives_of
from dbf_ray.reports.pareto import staircase
from dbf_ray.reports.style import FRONT, INK, MUTED, pale
from dbf_ray.reports.trials import is_complete, mean_accuracy, mean_of

SHORTER = "full, cut short"
BELIEVED = "front by posterior mean"


class Uncertainty(NamedTuple):
    """Places are (cost, accuracy).

    Attributes:
        bars: cost, lower and upper end of the interval of each accuracy.
        spans: accuracy, least and most of each cost that seeds differ in.
        believed: corners of the front by posterior mean, where it is another than the observed one.
        shorter: full training and its shorter ones, cheapest first; empty without.
    """

    bars: tuple[tuple[float, float, float], ...] = ()
    spans: tuple[tuple[float, float, float], ...] = ()
    believed: tuple[tuple[float, float], ...] = ()
    shorter: tuple[tuple[float, float], ...] = ()


def uncertainty_of(result: Mapping[str, Any]) -> Uncertainty:
    """From the content of ``pareto.json``."""
    objectives = objectives_of(result)
    rows = {row["number"]: row for row in result["trials"] if is_complete(row, objectives)}
    cost, accuracy = objectives.cost, objectives.accuracy
    bars = [(mean_of(row, cost), *found) for row in rows.values() if (found := interval_of(row))]
    spans = [(mean_accuracy(row, accuracy), *found) for row in rows.values() if (found := span_of(row, cost))]
    believed: list[tuple[float, float]] = []
    if sorted(result.get("front_posterior", ())) != sorted(result["front"]):
        there = [rows[number] for number in result.get("front_posterior", ())]
        believed = staircase([(row["accuracy_posterior"], mean_of(row, cost)) for row in there])
    line = [rows[number] for number in result.get("controls", ())]
    shorter = [(mean_of(row, cost), row["accuracy_mean"]) for row in line]
    return Uncertainty(tuple(bars), tuple(spans), tuple(believed), tuple(sorted(shorter)))


def interval_of(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """The interval of a trial's accuracy; None where nothing is known of chance."""
    low, high = row.get("accuracy_interval") or (0.0, 0.0)
    return (low, high) if high > low else None


def span_of(row: Mapping[str, Any], cost: str) -> tuple[float, float] | None:
    """Least and most of a cost that a trial's seeds differ in; None where they do not."""
    found = [run[cost] for run in (row, *(row.get("seeds") or ())) if run.get(cost) is not None]
    return (min(found), max(found)) if found and max(found) > min(found) else None


def draw_uncertainty(axes: Axes, shown: Uncertainty) -> list[Line2D]:
    """Draw it under the points; returns what the legend says of it."""
    entries = []
    for cost, low, high in shown.bars:
        axes.plot([cost, cost], [low, high], color=pale(INK), linewidth=1.1, zorder=2, solid_capstyle="butt")
    for accuracy, low, high in shown.spans:
        axes.plot([low, high], [accuracy] * 2, color=pale(INK), linewidth=1.1, zorder=2)
    if shown.bars:
        label = "90 % interval" + (", range of cost" if shown.spans else "")
        entries.append(Line2D([], [], color=pale(INK), linewidth=1.1, label=label))
    if shown.believed:
        style: dict[str, Any] = {"color": FRONT, "linewidth": 1.2, "linestyle": (0, (2, 2))}
        axes.plot(*zip(*shown.believed, strict=True), zorder=3, **style)
        entries.append(Line2D([], [], label=BELIEVED, **style))
    if shown.shorter:
        style = {"color": MUTED, "linewidth": 1.4, "linestyle": (0, (6, 3))}
        axes.plot(*zip(*shown.shorter, strict=True), zorder=3, **style)
        entries.append(Line2D([], [], label=SHORTER, **style))
    return entries
