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

STATES = ((RUNS[2], "matched"), (RUNS[5], "matched in some views only"), (RUNS[1], "never matched"))
LEVELS = ("#111111", "#44337a", "#7f3c8d", "#b5469b", "#e0629b", "#f39ac0")  # from the finest on
MOST_CLASSES = 20
_DPI = 130
_MARKERS = "sD^vPX"


def state_of(share: Sequence[float]) -> list[int]:
    """Which of :data:`STATES` an object is in that is matched in a share of the views."""
    return [0 if part == 1 else 2 if part == 0 else 1 for part in share]


def shapes_png(shapes: Mapping[str, Any], title: str, image_size: int, width: float = 6.4) -> bytes:
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
        axes = figure.add_axes((0.115, 0.215, 0.865, 0.725))
        axes.set_title(title, loc="left", fontsize=11)
        long, short = np.asarray(shapes["long"]), np.asarray(shapes["short"])
        states = np.asarray(state_of(shapes["share"]))
        for number, (color, label) in enumerate(STATES):
            own = states == number
            if own.any():
                axes.scatter(
                    *(long[own], short[own]),
                    s=9,
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
            bbox_to_anchor=(0.47, -0.105),
            ncols=3,
            fontsize=8.5,
            markerscale=1.3,
            columnspacing=1.2,
            handletextpad=0.3,
        )
        return _png(figure)


def _anchors(axes: Axes, levels: Sequence[Mapping[str, Any]]) -> None:
    for number, level in enumerate(levels):
        long, short = zip(*level["sides"], strict=True)
        axes.scatter(
            *(long, short),
            s=34,
            marker=_MARKERS[number % len(_MARKERS)],
            facecolors="none",
            edgecolors=LEVELS[min(number, len(LEVELS) - 1)],
            linewidths=1.3,
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
        set_limits(low / 1.5, max(values.max() * 1.5, low * 4) if len(values) else 64)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=2, numticks=14))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(True)


def coverage_png(
    before: Mapping[str, Any], after: Mapping[str, Any], width: float = 6.4, most: int = MOST_CLASSES
) -> bytes:
    """Share of objects that are covered, with a detector's defaults and with settings, by class and by size.

    Args:
        before, after: ``all``, ``difficult``, ``classes`` and ``sizes``, each group with ``objects`` and
            ``covered``.
        width: of the picture, inches.
        most: classes that are drawn, those first that are covered least.
    """
    rows = _rows(before, after, most)
    with mpl.rc_context(MATPLOTLIB):
        high = 0.36 * len(rows) + 1.1
        figure = Figure(figsize=(width, high), dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.36, 0.5 / high, 0.5, 1 - 1.0 / high))
        for place, row in enumerate(rows):
            if row is not None:
                _bar(axes, place, *row)
        named = [(place, row) for place, row in enumerate(rows) if row is not None]
        axes.set_yticks(
            [place for place, _ in named],
            [f"{_shortened(row[0])}  ({row[1]})" for _, row in named],
            fontsize=9,
        )
        axes.tick_params(axis="y", left=False, labelcolor=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.grid(True, axis="x")
        for place, row in enumerate(rows):
            if row is None:
                axes.axhline(place, color=GRID, linewidth=0.8)
        head = 1 - 0.24 / high
        figure.text(0.36, head, "■", color=pale(FRONT), fontsize=11, va="center")
        figure.text(0.395, head, "the detector's defaults", fontsize=9.5, va="center")
        figure.text(0.68, head, "■", color=FRONT, fontsize=11, va="center")
        figure.text(0.715, head, "as set", fontsize=9.5, va="center")
        return _png(figure)


Row = tuple[str, int, float, float]  # name, objects, covered before and after


def _rows(before: Mapping[str, Any], after: Mapping[str, Any], most: int) -> list[Row | None]:
    """Groups with objects, one of all, of classes and of sizes, None between them."""

    def row(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Row | None]:
        return [(name, new["objects"], old["covered"], new["covered"])] if new["objects"] else []

    classes = [
        one for name in after["classes"] for one in row(name, before["classes"][name], after["classes"][name])
    ]
    classes.sort(key=lambda one: 0 if one is None else one[3])
    sizes = [one for name in after["sizes"] for one in row(name, before["sizes"][name], after["sizes"][name])]
    head = row("all", before["all"], after["all"]) + row("difficult", before["difficult"], after["difficult"])
    rows: list[Row | None] = []
    for group in (head, classes[:most], sizes):
        rows += [*([None] if rows and group else []), *group]
    return rows


def _bar(axes: Axes, place: int, _: str, __: int, old: float, new: float) -> None:
    axes.barh(place - 0.19, old, height=0.3, color=pale(FRONT), zorder=2)
    axes.barh(place + 0.17, new, height=0.38, color=FRONT, zorder=2)
    text = f"{old:.1%} → {new:.1%}"
    axes.annotate(
        text,
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
