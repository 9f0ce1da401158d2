"""What a detector can match, as pictures: objects and anchors by their sides, and coverage by class."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dbf_ray.reports.style import FRONT, GRID, INK, MATPLOTLIB, MUTED, RUNS, pale

STATES = ((RUNS[2], "matched in all views"), ("#edb120", "in some views only"), (RUNS[1], "in none"))
LEVELS = ("#111111", "#44337a", "#7f3c8d", "#b5469b", "#e0629b", "#f39ac0")  # from the finest on
MOST_CLASSES = 20
_DPI = 150
_FEW = "#e8a27c"
_MARKERS = "sD^vPX"


def state_of(share: Sequence[float]) -> list[int]:
    """Which of :data:`STATES` an object is in that is matched in a share of the views."""
    return [0 if part == 1 else 2 if part == 0 else 1 for part in share]


def shapes_png(shapes: Mapping[str, Any], title: str, image_size: int, width: float = 5.4) -> bytes:
    """Long and short sides of objects in the colour of what matches them, and the anchors over them.

    Args:
        shapes: ``long``, ``short`` (pixels) and ``share`` (of views) of each object; ``upright``;
            ``anchors``: ``stride`` and ``sides`` [k, 2] of each level; ``limits``: long sides where the level
            changes.
        title: whose anchors.
        image_size: long side that images are resized to, pixels.
        width: of the picture, inches.
    """
    with mpl.rc_context(MATPLOTLIB):
        figure = Figure(figsize=(width, 0.96 * width), dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.125, 0.245, 0.855, 0.695))
        axes.set_title(title, loc="left", fontsize=11)
        long, short = np.asarray(shapes["long"]), np.asarray(shapes["short"])
        states = np.asarray(state_of(shapes["share"]))
        for number, (color, label) in enumerate(STATES):
            own = states == number
            if own.any():
                axes.scatter(
                    *(long[own], short[own]),
                    s=8,
                    color=color,
                    alpha=0.45,
                    linewidths=0,
                    label=f"{label}: {own.sum()}",
                    zorder=2 + number / 10,
                )
        _anchors(axes, shapes["anchors"])
        for limit in shapes["limits"]:
            axes.axvline(limit, color=LEVELS[2], linewidth=1, linestyle=(0, (4, 3)), zorder=3)
        _pixels(axes, long, short)
        around = "of upright boxes around the objects, " if shapes["upright"] else ""
        axes.set_xlabel(f"long side, {around}pixels at {image_size} px", labelpad=5)
        axes.set_ylabel("short side, pixels", labelpad=3)
        axes.legend(
            *_levels_last(axes),
            loc="upper center",
            bbox_to_anchor=(0.46, -0.125),
            ncols=3,
            fontsize=8,
            columnspacing=1,
            handletextpad=0.3,
        )
        return _png(figure)


def _anchors(axes: Axes, levels: Sequence[Mapping[str, Any]]) -> None:
    for number, level in enumerate(levels):
        long, short = zip(*level["sides"], strict=True)
        axes.scatter(
            *(long, short),
            s=46,
            marker=_MARKERS[number % len(_MARKERS)],
            facecolors="white",
            edgecolors=LEVELS[min(number, len(LEVELS) - 1)],
            linewidths=1.6,
            label=f"anchors, stride {level['stride']}",
            zorder=4,
        )


def _levels_last(axes: Axes) -> tuple[Sequence[Any], Sequence[str]]:
    handles, labels = axes.get_legend_handles_labels()
    for handle in handles:
        handle.set_alpha(1)
    return handles, labels


def _pixels(axes: Axes, long: Any, short: Any) -> None:
    """Octaves on both axes, as far as objects reach."""
    for set_scale, set_limits, values in (
        (axes.set_xscale, axes.set_xlim, long),
        (axes.set_yscale, axes.set_ylim, short),
    ):
        set_scale("log", base=2)
        low = max(values.min(), 0.25) if len(values) else 1
        set_limits(low / 1.5, max(values.max() * 2, low * 4) if len(values) else 64)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=2, numticks=14))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(True)


def coverage_png(
    before: Mapping[str, Any], after: Mapping[str, Any], width: float = 5.4, most: int = MOST_CLASSES
) -> bytes:
    """Share of objects that are covered, with a detector's defaults and with settings, by class and by size.

    Args:
        before, after: ``all``, ``difficult``, ``classes`` and ``sizes``, each group with ``objects`` and
            ``covered``, and ``under_3_points`` where these are counted.
        width: of the picture, inches.
        most: classes that are drawn, those first that are covered least.
    """
    rows = _rows(before, after, most)
    with mpl.rc_context(MATPLOTLIB):
        high = 0.36 * len(rows) + 1.1
        figure = Figure(figsize=(width, high), dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.345, 0.5 / high, 0.435, 1 - 1.0 / high))
        for place, row in enumerate(rows):
            if row is None:
                axes.axhline(place, color=GRID, linewidth=0.8)
            else:
                _bar(axes, place, *row)
        named = [(place, row) for place, row in enumerate(rows) if row is not None]
        labels = [f"{_shortened(name)}  ({new['objects']})" for _, (name, _, new) in named]
        axes.set_yticks([place for place, _ in named], labels, fontsize=9)
        axes.tick_params(axis="y", left=False, labelcolor=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.grid(True, axis="x")
        _legend(figure, 1 - 0.24 / high, "under_3_points" in after["all"])
        return _png(figure)


def _legend(figure: Figure, head: float, points: bool) -> None:
    marks = [(pale(FRONT), "defaults"), (FRONT, "as set")]
    marks += [(_FEW, "by one or two points")] if points else []
    for (color, text), left in zip(marks, (0.345, 0.525, 0.66), strict=False):
        figure.text(left, head, "■", color=color, fontsize=11, va="center")
        figure.text(left + 0.04, head, text, fontsize=9, va="center")


Row = tuple[str, Mapping[str, Any], Mapping[str, Any]]  # name, before and after


def _rows(before: Mapping[str, Any], after: Mapping[str, Any], most: int) -> list[Row | None]:
    """Groups with objects, one of all, of classes and of sizes, None between them."""

    def counted(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Row]:
        return [(name, old[name], row) for name, row in new.items() if row["objects"]]

    head = [{name: part[name] for name in ("all", "difficult")} for part in (before, after)]
    classes = sorted(counted(before["classes"], after["classes"]), key=lambda row: row[2]["covered"])
    rows: list[Row | None] = []
    for group in (counted(*head), classes[:most], counted(before["sizes"], after["sizes"])):
        rows += [*([None] if rows and group else []), *group]
    return rows


def _bar(axes: Axes, place: int, _: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Covered before and after; what has one or two points of FCOS in a colour of its own."""
    for row, middle, high, color in ((old, -0.19, 0.3, pale(FRONT)), (new, 0.17, 0.38, FRONT)):
        axes.barh(place + middle, row["covered"], height=high, color=color, zorder=2)
        many = 1 - row.get("under_3_points", 1 - row["covered"])
        axes.barh(place + middle, row["covered"] - many, left=many, height=high, color=_FEW, zorder=3)
    axes.annotate(
        f"{old['covered']:.1%} → {new['covered']:.1%}",
        (1, place),
        (6, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=MUTED,
        annotation_clip=False,
    )


def _shortened(name: str) -> str:
    return name if len(name) <= 22 else name[:20] + "…"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
