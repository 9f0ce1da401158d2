"""What chance leaves open, in the picture of a trade-off: intervals, the front that is believed, and the line
of shorter full trainings. First the plain data, then what draws it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dbf_ray.reports.objectives import objectives_of
from dbf_ray.reports.pareto import staircase
from dbf_ray.reports.style import FRONT, INK, MUTED, pale
from dbf_ray.reports.trials import is_complete

SHORTER = "full, cut short"
BELIEVED = "front by posterior mean"


class Uncertainty(NamedTuple):
    """Places are (cost, accuracy).

    Attributes:
        bars: cost, lower and upper end of each interval.
        believed: corners of the front by posterior mean, where it is another than the observed one.
        shorter: full training and its shorter ones, cheapest first; empty without.
    """

    bars: tuple[tuple[float, float, float], ...] = ()
    believed: tuple[tuple[float, float], ...] = ()
    shorter: tuple[tuple[float, float], ...] = ()


def uncertainty_of(result: Mapping[str, Any]) -> Uncertainty:
    """From the content of ``pareto.json``."""
    objectives = objectives_of(result)
    rows = {row["number"]: row for row in result["trials"] if is_complete(row, objectives)}
    bars = [
        (row[objectives.cost], *row["accuracy_interval"])
        for row in rows.values()
        if row.get("accuracy_interval") and row["accuracy_interval"][1] > row["accuracy_interval"][0]
    ]
    believed: list[tuple[float, float]] = []
    if sorted(result.get("front_posterior", ())) != sorted(result["front"]):
        there = [rows[number] for number in result.get("front_posterior", ())]
        believed = staircase([(row["accuracy_posterior"], row[objectives.cost]) for row in there])
    line = [rows[number] for number in result.get("controls", ())]
    shorter = [(row[objectives.cost], row["accuracy_mean"]) for row in line]
    return Uncertainty(tuple(bars), tuple(believed), tuple(sorted(shorter)))


def draw_uncertainty(axes: Axes, shown: Uncertainty) -> list[Line2D]:
    """Draw it under the points; returns what the legend says of it."""
    entries = []
    for cost, low, high in shown.bars:
        axes.plot([cost, cost], [low, high], color=pale(INK), linewidth=1.1, zorder=2, solid_capstyle="butt")
    if shown.bars:
        entries.append(Line2D([], [], color=pale(INK), linewidth=1.1, label="90 % interval"))
    if shown.believed:
        style: dict[str, Any] = {"color": FRONT, "linewidth": 1.2, "linestyle": (0, (2, 2))}
        axes.plot(*zip(*shown.believed, strict=True), zorder=3, **style)
        entries.append(Line2D([], [], label=BELIEVED, **style))
    if shown.shorter:
        style = {"color": MUTED, "linewidth": 1.4, "linestyle": (0, (6, 3))}
        axes.plot(*zip(*shown.shorter, strict=True), zorder=3, **style)
        entries.append(Line2D([], [], label=SHORTER, **style))
    return entries


def add_uncertainty(figure: go.Figure, shown: Uncertainty) -> None:
    """The same in the interactive picture."""
    if shown.bars:
        x = [value for cost, _, _ in shown.bars for value in (cost, cost, None)]
        y = [value for _, low, high in shown.bars for value in (low, high, None)]
        _add_line(figure, x, y, "90 % interval", {"color": pale(INK), "width": 1.2})
    for corners, name, line in (
        (shown.believed, BELIEVED, {"color": FRONT, "width": 1.4, "dash": "dot"}),
        (shown.shorter, SHORTER, {"color": MUTED, "width": 1.6, "dash": "dash"}),
    ):
        if corners:
            x, y = map(list, zip(*corners, strict=True))
            _add_line(figure, x, y, name, line)


def _add_line(figure: go.Figure, x: list[Any], y: list[Any], name: str, line: dict[str, Any]) -> None:
    figure.add_scatter(x=x, y=y, mode="lines", line=line, name=name, hoverinfo="skip", legendrank=1005)
