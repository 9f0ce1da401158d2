"""How several runs learned, by epoch and by training time, with what was frozen when: first the plain data,
then the drawing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dbf_ray.reports.style import INK, MATPLOTLIB, MUTED, RUNS, pale

_LEGEND_COLUMNS = 7
_LEAST_TOP = 0.05  # of the axis of map50: below it there is nothing to see
_BESIDE = 11  # signs of a name beside the strips
_UNITS = ((7200.0, 3600.0, "hours"), (600.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


class LearningCurve(NamedTuple):
    """One run, epoch by epoch, all tuples of equal length.

    Attributes:
        name: as shown in the legend.
        epochs: 0-based epoch numbers.
        map50: fraction in [0, 1]; NaN where the epoch was not evaluated.
        seconds: device seconds spent on training up to the epoch's end; NaN from where they are not known.
        frozen: share of the backbone's stages that were frozen in the epoch, 0 to 1.
    """

    name: str
    epochs: tuple[int, ...]
    map50: tuple[float, ...]
    seconds: tuple[float, ...]
    frozen: tuple[float, ...]


def learning_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], num_stages: int | Mapping[str, int] = 4
) -> tuple[LearningCurve, ...]:
    """The plain data of the picture.

    Args:
        runs: name -> records of ``epochs.jsonl`` (epoch, map50, device_seconds, frozen_stages). Where an
            epoch comes twice, the last one counts.
        num_stages: stages of the backbone, of all runs or by name.
    """
    return tuple(
        _curve(name, records, num_stages if isinstance(num_stages, int) else num_stages[name])
        for name, records in runs.items()
    )


def learning_png(
    curves: Sequence[LearningCurve], title: str = "Learning curves", width: float = 11.0, dpi: int = 150
) -> bytes:
    """The picture as PNG bytes: map50 by epoch (and below, what was frozen when), and against cumulative
    device seconds; width in inches.
    """
    strips = 0.24 * max(1, len(curves))
    head = 0.82 + 0.23 * math.ceil(len(_legend(curves)) / _LEGEND_COLUMNS)
    height = head + 4.0 + strips
    with mpl.rc_context(MATPLOTLIB):
        figure = Figure(figsize=(width, height), dpi=dpi)
        FigureCanvasAgg(figure)
        figure.text(0.02, 1 - 0.33 / height, title, fontsize=14, fontweight="bold")
        grid = figure.add_gridspec(
            2,
            2,
            height_ratios=(3.4, strips),
            left=0.075,
            right=0.98,
            bottom=0.6 / height,
            top=1 - head / height,
            hspace=0.08,
            wspace=0.14,
        )
        by_epoch = figure.add_subplot(grid[0, 0])
        strip = figure.add_subplot(grid[1, 0], sharex=by_epoch)
        by_time = figure.add_subplot(grid[0, 1], sharey=by_epoch)
        unit, unit_name = _unit(curves)
        for index, curve in enumerate(curves):
            color = RUNS[index % len(RUNS)]
            _line(by_epoch, curve, curve.epochs, color)
            _line(by_time, curve, [value / unit for value in curve.seconds], color)
            _strip(strip, curve, index, color)
        _finish(by_epoch, strip, by_time, curves, unit_name)
        figure.legend(
            handles=_legend(curves),
            loc="upper left",
            bbox_to_anchor=(0.012, 1 - 0.43 / height),
            ncols=_LEGEND_COLUMNS,
            fontsize=9,
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _curve(name: str, records: Sequence[Mapping[str, Any]], num_stages: int) -> LearningCurve:
    latest = {int(record["epoch"]): record for record in records}
    ordered = [latest[epoch] for epoch in sorted(latest)]
    seconds, total = [], 0.0
    for record in ordered:
        total += _number(record.get("device_seconds"))
        seconds.append(total)
    return LearningCurve(
        name=name,
        epochs=tuple(sorted(latest)),
        map50=tuple(_number(record.get("map50")) for record in ordered),
        seconds=tuple(seconds),
        frozen=tuple(min(1.0, max(0.0, record.get("frozen_stages", 0) / num_stages)) for record in ordered),
    )


def _line(axes: Axes, curve: LearningCurve, x: Sequence[float], color: str) -> None:
    """A run's evaluated epochs: filled marks after epochs that trained the whole backbone, hollow ones where
    it was frozen.
    """
    shown = [
        (place, value, share)
        for place, value, share in zip(x, curve.map50, curve.frozen, strict=True)
        if math.isfinite(value + place)
    ]
    if not shown:
        return
    places, values, shares = zip(*shown, strict=True)
    axes.plot(places, values, color=color, linewidth=1.6, alpha=0.85, zorder=3)
    fills = [color if share == 0 else (pale(color, 0.45) if share < 1 else "white") for share in shares]
    axes.scatter(places, values, c=fills, edgecolors=color, s=26, linewidths=1.2, zorder=4, clip_on=False)


def _strip(axes: Axes, curve: LearningCurve, row: int, color: str) -> None:
    """One cell for each epoch: full colour where the backbone was trained, the paler the more of it was
    frozen.
    """
    fills = [pale(color, 1 - 0.88 * share) for share in curve.frozen]
    axes.barh(
        [row] * len(curve.epochs),
        0.92,
        left=[epoch - 0.46 for epoch in curve.epochs],
        height=0.72,
        color=fills,
        linewidth=0,
    )


def _finish(
    by_epoch: Axes, strip: Axes, by_time: Axes, curves: Sequence[LearningCurve], unit_name: str
) -> None:
    by_epoch.set_ylabel("map50: AP at IoU 0.5 (fraction)", labelpad=8)
    by_epoch.tick_params(labelbottom=False, bottom=False)
    by_time.set_xlabel(f"training time so far (device {unit_name})", labelpad=6)
    by_time.set_xlim(left=0)
    strip.set_xlabel("epoch (0-based)", labelpad=6)
    strip.set_yticks(range(len(curves)), [_short(curve.name) for curve in curves], fontsize=8)
    strip.set_ylim(len(curves) - 0.45, -0.55)
    strip.tick_params(left=False)
    strip.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    strip.set_xlim(-0.6, max((curve.epochs[-1] for curve in curves if curve.epochs), default=0) + 0.6)
    for side in ("left", "bottom"):
        strip.spines[side].set_visible(False)
    finite = [value for curve in curves for value in curve.map50 if math.isfinite(value)]
    by_epoch.set_ylim(0, max(1.08 * max(finite), _LEAST_TOP) if finite else 1.0)
    for axes in (by_epoch, by_time):
        axes.grid(True)
        if not finite:
            axes.text(0.5, 0.5, "no evaluated epoch yet", transform=axes.transAxes, ha="center", color=MUTED)


def _short(name: str) -> str:
    """As much of a name as fits beside the strips; the legend has the whole."""
    return name if len(name) <= _BESIDE else f"{name[: _BESIDE - 1]}…"


def _legend(curves: Sequence[LearningCurve]) -> list[Line2D | Patch]:
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=RUNS[i % len(RUNS)], linewidth=1.8, label=curve.name)
        for i, curve in enumerate(curves)
    ]
    states = {share if share in (0.0, 1.0) else 0.5 for curve in curves for share in curve.frozen}
    for state, fill, text in (
        (0.0, INK, "backbone trained"),
        (0.5, pale(INK, 0.45), "partly frozen"),
        (1.0, "white", "backbone frozen"),
    ):
        if state in states:
            entries.append(
                Line2D(
                    [],
                    [],
                    linestyle="none",
                    marker="o",
                    markersize=6,
                    markerfacecolor=fill,
                    markeredgecolor=INK,
                    label=text,
                )
            )
    return entries


def _unit(curves: Sequence[LearningCurve]) -> tuple[float, str]:
    longest = max((value for curve in curves for value in curve.seconds if math.isfinite(value)), default=0.0)
    return next((size, name) for least, size, name in _UNITS if longest >= least)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
