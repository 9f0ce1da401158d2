"""What a data set consists of as a picture: a function from the plain dictionary of counts and histograms."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from dbf_ray.reports.style import FRONT, MATPLOTLIB, MUTED, RUNS, pale

MOST_CLASSES = 20  # bars; the rest are one
_SIDES = (
    ("long_side", "long side", RUNS[2]),
    ("short_side", "short side", RUNS[1]),
    ("size", "√ area", RUNS[0]),
)

Histogram = Mapping[str, Sequence[float]]


def statistics_png(
    statistics: Mapping[str, Any], title: str = "Data set", width: float = 13.0, dpi: int = 130
) -> bytes:
    """The picture as PNG bytes.

    Args:
        statistics: ``images``, ``objects``, ``difficult``, ``images_without_objects``; ``splits`` and
            ``classes`` (name -> counts); ``past_border``; ``size``, ``long_side``, ``short_side``, ``angle``,
            ``aspect_ratio`` and ``objects_per_image`` with ``histogram`` (``edges`` [k + 1], ``counts`` [k])
            and ``quantiles``; ``image_sizes``: [width, height, images] each.
        title: at the top.
        width: of the picture, inches.
        dpi: pixels an inch.
    """
    with mpl.rc_context(MATPLOTLIB):
        figure = Figure(figsize=(width, 0.66 * width), dpi=dpi)
        FigureCanvasAgg(figure)
        figure.text(0.02, 0.958, title, fontsize=14, fontweight="bold")
        figure.text(0.02, 0.928, subtitle(statistics), fontsize=10, color=MUTED)
        grid = figure.add_gridspec(
            2, 3, left=0.115, right=0.975, bottom=0.075, top=0.865, wspace=0.27, hspace=0.36
        )
        _classes(figure.add_subplot(grid[0, 0]), statistics)
        _sizes(figure.add_subplot(grid[0, 1]), statistics)
        _aspects(figure.add_subplot(grid[0, 2]), statistics["aspect_ratio"])
        _angles(figure, figure.add_subplot(grid[1, 0], projection="polar"), statistics["angle"]["histogram"])
        _per_image(figure.add_subplot(grid[1, 1]), statistics["objects_per_image"])
        _image_sizes(figure.add_subplot(grid[1, 2]), statistics["image_sizes"])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def subtitle(statistics: Mapping[str, Any]) -> str:
    """The line under the title: counts, and those of each split."""
    counts = statistics["splits"]
    splits = ", ".join(f"{name} {part['images']}" for name, part in counts.items())
    parts = [f"{statistics['images']} images" + (f" ({splits})" if len(counts) > 1 else "")]
    if statistics["images_without_objects"]:
        parts[0] += f", {statistics['images_without_objects']} without objects"
    parts.append(
        f"{statistics['objects']} objects"
        + (f", {statistics['difficult']} difficult" if statistics["difficult"] else "")
    )
    if statistics["past_border"]["objects"]:
        parts.append(f"{statistics['past_border']['share']:.1%} of them reach past the border")
    return "  ·  ".join(parts)


def _classes(axes: Axes, statistics: Mapping[str, Any]) -> None:
    counts = [(name, row["objects"]) for name, row in statistics["classes"].items()]
    shown, others = counts[:MOST_CLASSES], counts[MOST_CLASSES:]
    if others:
        shown = [*shown, (f"{len(others)} more", sum(count for _, count in others))]
    axes.set_title("objects of each class", loc="left", fontsize=10.5)
    if _is_empty(axes, len(shown)):
        return
    names, values = zip(*shown, strict=True)
    axes.barh(range(len(shown)), values, color=FRONT, height=min(0.75, 0.09 * len(shown) + 0.1))
    axes.set_yticks(
        range(len(shown)), [_shortened(name) for name in names], fontsize=8 if len(shown) > 12 else 9
    )
    axes.set_ylim(max(len(shown), 3) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(min(1.0, min(values)) * 0.7, max(values) * 3.5)
    for row, value in enumerate(values):
        axes.annotate(
            f"{value:,}",
            (value, row),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=MUTED,
        )
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.tick_params(axis="y", left=False, labelcolor="#1f2933")
    axes.grid(True, axis="x")


def _sizes(axes: Axes, statistics: Mapping[str, Any]) -> None:
    """Three outlines over sizes in octaves, cut to where objects are."""
    axes.set_title("sizes of objects", loc="left", fontsize=10.5)
    if _is_empty(axes, statistics["objects"]):
        return
    filled = []
    for key, label, color in _SIDES:
        edges, counts = (
            np.asarray(statistics[key]["histogram"][part], dtype=float) for part in ("edges", "counts")
        )
        filled += [*edges[:-1][counts > 0], *edges[1:][counts > 0]]
        median = statistics[key]["quantiles"]["0.5"]
        axes.stairs(counts, edges, color=color, linewidth=1.6, label=f"{label}, median {median:.3g}")
        axes.stairs(counts, edges, fill=True, color=pale(color, 0.2), alpha=0.35, zorder=1)
    _octaves(axes, min(filled), max(filled), "pixels")
    _count_axis(axes)
    axes.set_ylim(top=1.32 * axes.get_ylim()[1])
    axes.legend(loc="upper right", fontsize=8.5, labelspacing=0.3, borderaxespad=0.1)


def _aspects(axes: Axes, aspects: Mapping[str, Any]) -> None:
    edges, counts = (np.asarray(aspects["histogram"][part], dtype=float) for part in ("edges", "counts"))
    axes.set_title("aspect ratios of objects", loc="left", fontsize=10.5)
    if _is_empty(axes, counts.sum()):
        return
    last = int(np.flatnonzero(counts)[-1]) + 1
    axes.stairs(counts[:last], edges[: last + 1], fill=True, color=FRONT)
    axes.set_xlabel(
        "long side / short side" + (f" (last: {edges[-1]:g} and more)" if last == len(counts) else ""),
        labelpad=6,
    )
    axes.set_xlim(1, max(edges[last], 2))
    _count_axis(axes)
    _median(axes, aspects["quantiles"]["0.5"])


def _angles(figure: Figure, axes: Axes, histogram: Histogram) -> None:
    """Which way the long side points, as seen in the image: half a circle, since both ends are alike."""
    edges, counts = (np.asarray(histogram[part], dtype=float) for part in ("edges", "counts"))
    assert isinstance(axes, PolarAxes)
    place = axes.get_subplotspec()
    assert place is not None
    cell = place.get_position(figure)
    axes.set_position((cell.x0, cell.y0 + 0.02, cell.width, cell.height - 0.05))
    figure.text(cell.x0, cell.y1 + 0.008, "angles of objects", fontsize=10.5)
    figure.text((cell.x0 + cell.x1) / 2, cell.y0 - 0.045, "degrees, counter-clockwise as seen", ha="center")
    axes.set_thetamin(-90)
    axes.set_thetamax(90)
    widths = np.deg2rad(np.diff(edges))
    axes.bar(
        np.deg2rad(edges[:-1]) + widths / 2,
        counts,
        width=widths,
        color=FRONT,
        linewidth=0.4,
        edgecolor="white",
    )
    axes.set_thetagrids(range(-90, 91, 30), [f"{angle}°" for angle in range(-90, 91, 30)], fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(True)
    axes.spines["polar"].set_visible(False)
    if not counts.sum():
        axes.set_ylim(0, 1)


def _per_image(axes: Axes, per_image: Mapping[str, Any]) -> None:
    """Bars of equal width for 0, 1, 2 to 3, 4 to 7 and so on, what they begin with below their left edges."""
    edges, counts = per_image["histogram"]["edges"], np.asarray(per_image["histogram"]["counts"])
    axes.set_title("objects in an image", loc="left", fontsize=10.5)
    if _is_empty(axes, counts.sum()):
        return
    last = int(np.flatnonzero(counts)[-1]) + 1
    axes.bar(range(last), counts[:last], color=FRONT, width=0.94)
    axes.set_xticks(
        np.arange(last + 1) - 0.5,
        [f"{edge:g}" for edge in edges[: last + 1]],
        fontsize=9 if last < 11 else 7.5,
    )
    axes.set_xlim(-0.5, max(last, 3) - 0.3)
    axes.set_xlabel(
        f"objects (mean {per_image['mean']:.3g}, most {per_image['quantiles']['1']:.0f})", labelpad=6
    )
    _count_axis(axes, "images")


def _image_sizes(axes: Axes, sizes: Sequence[Sequence[int]]) -> None:
    axes.set_title("sizes of images", loc="left", fontsize=10.5)
    if _is_empty(axes, len(sizes)):
        return
    widths, heights, counts = (np.asarray(column, dtype=float) for column in zip(*sizes, strict=True))
    areas = 34 + 240 * np.sqrt(counts / counts.max()) * (counts > 1)
    axes.scatter(
        widths, heights, s=areas, color=FRONT, alpha=0.4, edgecolors="white", linewidths=0.6, zorder=3
    )
    for set_scale, set_limits, values in (
        (axes.set_xscale, axes.set_xlim, widths),
        (axes.set_yscale, axes.set_ylim, heights),
    ):
        set_scale("log", base=2)
        middle, half = (
            math.sqrt(values.min() * values.max()),
            max(1.5, 1.25 * math.sqrt(values.max() / values.min())),
        )
        set_limits(middle / half, middle * half)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=2, subs=(1.0, 1.5), numticks=20))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.tick_params(labelsize=8.5)
    axes.set_xlabel("width, pixels", labelpad=6)
    axes.set_ylabel("height, pixels", labelpad=4)
    axes.grid(True)
    most = max(sizes, key=lambda row: row[2])
    if most[2] > 1:
        axes.text(
            0.98,
            0.03,
            f"most often {most[0]} x {most[1]} ({most[2]})",
            transform=axes.transAxes,
            ha="right",
            fontsize=8.5,
            color=MUTED,
        )


def _octaves(axes: Axes, low: float, high: float, label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    powers = range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)
    axes.xaxis.set_major_locator(FixedLocator([2.0**power for power in powers]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(label, labelpad=6)


def _count_axis(axes: Axes, label: str = "objects") -> None:
    axes.set_ylabel(label, labelpad=4)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.grid(True, axis="y")


def _median(axes: Axes, value: float) -> None:
    axes.axvline(value, color=RUNS[1], linewidth=1.4)
    axes.annotate(
        f"median {value:.3g}",
        (value, 0.95),
        (4, 0),
        ("data", "axes fraction"),
        "offset points",
        color=RUNS[1],
        fontsize=8.5,
    )


def _is_empty(axes: Axes, count: float) -> bool:
    if count:
        return False
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color=MUTED)
    return True


def _shortened(name: str) -> str:
    return name if len(name) <= 20 else name[:18] + "…"


def _thousands(value: float, _: int | None = None) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"
