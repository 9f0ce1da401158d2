"""The trade-off of a study as a picture: first the plain data, then the function that draws it (as a page:
see :mod:`.page`).
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox

from dbf_ray.reports.objectives import Objectives, noun, objectives_of, title
from dbf_ray.reports.pareto import staircase
from dbf_ray.reports.style import FRONT, INK, MATPLOTLIB, MUTED, REGION, pale, policy_styles
from dbf_ray.reports.trials import (
    is_baseline,
    is_complete,
    is_control,
    mean_accuracy,
    mean_of,
    short_label,
)
from dbf_ray.reports.uncertainty import Uncertainty, draw_uncertainty, uncertainty_of


class ParetoPoint(NamedTuple):
    """One complete trial: its place, and how it is marked."""

    number: int
    policy: str
    label: str
    cost: float
    accuracy: float
    on_front: bool
    is_knee: bool
    is_baseline: bool


class ParetoData(NamedTuple):
    """All that the picture shows. ``front`` and ``region`` are corners (cost, accuracy); ``region`` is
    a closed polygon or empty.
    """

    study: str
    objectives: Objectives
    points: tuple[ParetoPoint, ...]
    unfinished: int
    front: tuple[tuple[float, float], ...]
    region: tuple[tuple[float, float], ...]
    reference: tuple[float, float] | None
    hypervolume: float | None
    gain: float | None
    answer: str
    uncertainty: Uncertainty = Uncertainty()


def pareto_data(result: Mapping[str, Any]) -> ParetoData:
    """The plain data of the picture, from the content of ``pareto.json``."""
    objectives = objectives_of(result)
    shown = [trial for trial in result["trials"] if is_complete(trial, objectives)]
    pairs = [(mean_accuracy(trial, objectives.accuracy), mean_of(trial, objectives.cost)) for trial in shown]
    reference = result["reference"]
    region: list[tuple[float, float]] = staircase(pairs, reference) if reference else []
    if region:
        region += [(region[-1][0], region[0][1]), region[0]]
    return ParetoData(
        study=str(result["study"]),
        objectives=objectives,
        points=tuple(_point(trial, result, objectives) for trial in shown),
        unfinished=len(result["trials"]) - len(shown),
        front=tuple(staircase(pairs)),
        region=tuple(region),
        reference=(float(reference[0]), float(reference[1])) if reference else None,
        hypervolume=result["hypervolume"],
        gain=result.get("hypervolume_gain"),
        answer=str(result["answer"].get("text", "")),
        uncertainty=uncertainty_of(result),
    )


def heading(data: ParetoData) -> str:
    """The title of the picture."""
    return f"{data.study}: accuracy against {noun(data.objectives.cost)}"


def subtitle(data: ParetoData) -> str:
    """The line under the title: how many trials, how many on the front, and the hypervolume."""
    count, on_front = len(data.points), sum(point.on_front for point in data.points)
    parts = [f"{count} trial{'' if count == 1 else 's'}, {on_front} on the front"]
    if data.unfinished:
        parts[0] += f", {data.unfinished} failed or unfinished"
    if data.hypervolume is not None:
        gain = f" ({data.gain:+.4f} over the baselines alone)" if data.gain is not None else ""
        parts.append(f"hypervolume {data.hypervolume:.4f}{gain}")
    return "  ·  ".join(parts)


def pareto_png(data: ParetoData, width: float = 10.0, height: float = 5.8, dpi: int = 150) -> bytes:
    """The picture as PNG bytes; width and height in inches."""
    with mpl.rc_context(MATPLOTLIB):
        figure = Figure(figsize=(width, height), dpi=dpi)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.08, 0.105, 0.735, 0.755))
        axes.grid(True)
        axes.set_xlabel(title(data.objectives.cost), labelpad=8)
        axes.set_ylabel(title(data.objectives.accuracy), labelpad=8)
        figure.text(0.02, 0.945, heading(data), fontsize=14, fontweight="bold")
        figure.text(0.02, 0.903, subtitle(data), fontsize=10, color=MUTED)
        if data.points:
            _draw(axes, data)
        else:
            axes.text(0.5, 0.5, "no finished trial yet", transform=axes.transAxes, ha="center", color=MUTED)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _draw(axes: Axes, data: ParetoData) -> None:
    if data.region:
        axes.fill(*zip(*data.region, strict=True), color=REGION, linewidth=0, zorder=1)
    axes.plot(*zip(*data.front, strict=True), color=FRONT, linewidth=1.8, zorder=3, solid_joinstyle="miter")
    beside = draw_uncertainty(axes, data.uncertainty)
    if data.reference:
        floor, budget = data.reference
        axes.plot(budget, floor, marker="+", color=MUTED, markersize=9, markeredgewidth=1.4, zorder=3)
    styles = policy_styles(point.policy for point in data.points)
    for point in sorted(data.points, key=lambda point: (point.on_front, point.is_baseline)):
        color, marker, _ = styles[point.policy]
        size = 80 if point.is_baseline or point.on_front else 48
        fill = color if point.on_front else ("white" if point.is_baseline else pale(color))
        edge: dict[str, Any] = {
            "edgecolors": color if point.is_baseline else "white",
            "linewidths": 1.6 if point.is_baseline else 1.0,
        }
        axes.scatter(
            point.cost,
            point.accuracy,
            s=size,
            c=fill,
            marker=marker,
            zorder=5 if point.on_front else 4,
            **edge,
        )
        if point.is_knee:
            axes.scatter(
                point.cost,
                point.accuracy,
                s=300,
                facecolors="none",
                edgecolors=INK,
                linewidths=1.4,
                zorder=6,
            )
    x_range, y_range = limits(data)
    axes.set_xlim(x_range)
    axes.set_ylim(y_range)
    _make_room(axes, _legend(axes, data, styles, beside))
    _label(axes, data, {name: style[0] for name, style in styles.items()})
    arrow = {"arrowstyle": "->", "color": MUTED}
    axes.annotate(
        "better",
        (0.012, 0.985),
        (0.06, 0.925),
        "axes fraction",
        "axes fraction",
        arrow,
        color=MUTED,
        fontsize=9,
    )


def _legend(
    axes: Axes, data: ParetoData, styles: Mapping[str, tuple[str, str, str]], beside: Sequence[Line2D]
) -> Legend:
    """Beside the plot, so that it never hides a point: policies, then what lines, areas and rings mean."""

    def mark(marker: str, face: str, edge: str, size: float, label: str) -> Line2D:
        return Line2D(
            [],
            [],
            linestyle="none",
            marker=marker,
            markerfacecolor=face,
            markeredgecolor=edge,
            markersize=size,
            label=label,
        )

    entries: list[Line2D | Patch] = [
        mark(marker, color, "white", 9, name) for name, (color, marker, _) in styles.items()
    ]
    if any(not point.on_front and not point.is_baseline for point in data.points):
        entries.append(mark("o", "#c3c9cf", "white", 7.5, "dominated (pale)"))
    if any(not point.on_front and point.is_baseline for point in data.points):
        entries.append(mark("s", "white", INK, 8, "dominated baseline"))
    entries.append(Line2D([], [], color=FRONT, linewidth=1.8, label="front"))
    if data.region:
        entries.append(Patch(facecolor=REGION, label="hypervolume"))
    if data.reference:
        entries.append(mark("+", MUTED, MUTED, 9, "reference point"))
    entries += beside
    if any(point.is_knee for point in data.points):
        entries.append(mark("o", "none", INK, 13, "recommended"))
    return axes.legend(
        handles=entries,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.01),
        fontsize=9,
        handletextpad=0.6,
        labelspacing=0.75,
        borderaxespad=0.0,
    )


def _make_room(axes: Axes, legend: Legend) -> None:
    """Make the plot as narrow as the legend beside it needs, down to a third of the picture."""
    left, bottom, width, height = axes.get_position().bounds
    beside = legend.get_window_extent().width / axes.figure.bbox.width
    axes.set_position((left, bottom, min(width, max(1 / 3, 0.97 - left - beside)), height))


def limits(data: ParetoData) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ranges of cost and accuracy to show: all points and the reference, with a margin for the
    labels.
    """
    x = [point.cost for point in data.points] + ([data.reference[1]] if data.reference else [])
    x += [end for _, low, high in data.uncertainty.spans for end in (low, high)]
    y = [point.accuracy for point in data.points] + ([data.reference[0]] if data.reference else [])
    y += [end for _, low, high in data.uncertainty.bars for end in (low, high)]
    pad_x, pad_y = (0.08 * ((max(values) - min(values)) or 0.1) for values in (x, y))
    return (min(x) - pad_x, max(x) + pad_x), (min(y) - pad_y, max(y) + 1.5 * pad_y)


def _label(axes: Axes, data: ParetoData, colors: Mapping[str, str]) -> None:
    """Write each point's label at the first place around it that is free; front points choose first,
    dominated ones may go without.
    """
    canvas = axes.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    scale = axes.figure.dpi / 72
    centers = [axes.transData.transform((point.cost, point.accuracy)) for point in data.points]
    taken = [Bbox.from_bounds(x - 5 * scale, y - 5 * scale, 10 * scale, 10 * scale) for x, y in centers]
    corners = axes.transData.transform(data.front)
    # the front's pieces, to be kept readable too
    taken += [Bbox([low, high]) for low, high in itertools.pairwise(corners)]
    for point in sorted(
        data.points, key=lambda point: (not point.is_baseline, not point.is_knee, not point.on_front)
    ):
        away = 11 if point.is_knee else 7
        strong = point.on_front or point.is_baseline
        for dx, dy in ((0, 1), (-1, 0.6), (1, 0.6), (1, -0.6), (-1, -0.6), (0, -1), (0, 2.4), (0, -2.4)):
            align: dict[str, Any] = {
                "ha": ("right", "center", "left")[dx + 1],
                "va": "bottom" if dy > 0 else "top",
            }
            place = (point.cost, point.accuracy)
            text = axes.annotate(
                point.label,
                place,
                (away * dx, away * dy),
                textcoords="offset points",
                fontsize=9,
                zorder=7,
                **align,
            )
            text.set_color(colors[point.policy] if strong else pale(colors[point.policy], 0.6))
            text.set_fontweight("bold" if strong else "normal")
            box = text.get_window_extent(renderer).padded(1.0)
            inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _point(trial: Mapping[str, Any], result: Mapping[str, Any], objectives: Objectives) -> ParetoPoint:
    return ParetoPoint(
        number=trial["number"],
        policy=str(trial["policy"]),
        label=short_label(trial),
        cost=mean_of(trial, objectives.cost),
        accuracy=mean_accuracy(trial, objectives.accuracy),
        on_front=trial["number"] in result["front"],
        is_knee=trial["number"] == result["answer"].get("number"),
        is_baseline=is_baseline(trial) and not is_control(trial),
    )
