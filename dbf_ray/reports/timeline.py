"""Which stages a schedule trains in which epoch, and what each epoch costs: plain data, then the drawing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dbf_ray.reports.style import FRONT, INK, MATPLOTLIB, MUTED, pale, policy_styles

TRAINED = policy_styles(["step"])["step"][0]
FROZEN = pale(FRONT, 0.16)
COST = pale(FRONT, 0.6)
DASHES = (0, (4, 3))
_NUMBERED = 40  # epochs up to which each has its number


class Timeline(NamedTuple):
    """A schedule, epoch by epoch.

    Attributes:
        frozen: how many leading stages are frozen in each epoch.
        num_stages: stages of the backbone.
        costs: training FLOPs of each epoch, over those of an epoch in which everything is trained.
    """

    frozen: tuple[int, ...]
    num_stages: int
    costs: tuple[float, ...]


def timeline(frozen: Sequence[int], cost_of: Sequence[float]) -> Timeline:
    """The plain data of the picture.

    Args:
        frozen: how many leading stages are frozen in each epoch.
        cost_of: training FLOPs of an epoch by the number of frozen stages, 0 to all, in any unit.
    """
    return Timeline(tuple(frozen), len(cost_of) - 1, tuple(cost_of[n] / cost_of[0] for n in frozen))


def timeline_png(
    data: Timeline, title: str, width: float = 10.0, dpi: int = 150, unit: str = "epoch (0-based)"
) -> bytes:
    """The picture as PNG bytes: a row for each stage, one for neck and head, and below them the FLOPs of
    each epoch, or of what else ``unit`` says; width in inches.
    """
    rows = 0.3 * (data.num_stages + 1)
    height = rows + 2.3
    with mpl.rc_context(MATPLOTLIB):
        figure = Figure(figsize=(width, height), dpi=dpi)
        FigureCanvasAgg(figure)
        figure.text(0.02, 1 - 0.34 / height, title, fontsize=13, fontweight="bold")
        grid = figure.add_gridspec(
            2,
            1,
            height_ratios=(rows, 0.75),
            left=0.11,
            right=0.98,
            bottom=0.5 / height,
            top=1 - 0.84 / height,
            hspace=0.12,
        )
        stages = figure.add_subplot(grid[0])
        costs = figure.add_subplot(grid[1], sharex=stages)
        _stages(stages, data)
        _costs(costs, data, unit)
        figure.legend(
            handles=[
                Patch(color=TRAINED, label="trained"),
                Patch(color=FROZEN, label="frozen"),
                Line2D(
                    [],
                    [],
                    color=INK,
                    linewidth=1.0,
                    linestyle=DASHES,
                    label=f"mean FLOPs: compute_ratio {mean(data.costs):.2f}",
                ),
            ],
            loc="upper left",
            bbox_to_anchor=(0.1, 1 - 0.42 / height),
            ncols=3,
            fontsize=9,
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _stages(axes: Axes, data: Timeline) -> None:
    """One cell for each epoch and stage: the input at the bottom, neck and head, always trained, at the
    top.
    """
    epochs = range(len(data.frozen))
    for row in range(data.num_stages + 1):
        fills = [FROZEN if row < n else TRAINED for n in data.frozen]
        axes.barh(
            [row] * len(fills),
            0.9,
            left=[epoch - 0.45 for epoch in epochs],
            height=0.82,
            color=fills,
            linewidth=0,
        )
    names = [f"stage {row + 1}" for row in range(data.num_stages)]
    axes.set_yticks(range(data.num_stages + 1), [*names, "neck, head"], fontsize=9)
    axes.set_ylim(-0.55, data.num_stages + 0.55)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _costs(axes: Axes, data: Timeline, unit: str) -> None:
    epochs = range(len(data.costs))
    axes.bar(epochs, data.costs, width=0.9, color=COST, linewidth=0)
    axes.axhline(mean(data.costs), color=INK, linewidth=1.0, linestyle=DASHES)
    axes.set_ylim(0, 1.15)
    axes.set_yticks([0, 1], ["0", "1"])
    axes.set_ylabel("FLOPs,\nfull = 1", fontsize=9, color=MUTED, rotation=0, ha="right", va="center")
    if len(epochs) <= _NUMBERED:
        axes.set_xticks(epochs)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.6, len(data.costs) - 0.4)
    axes.set_xlabel(unit, labelpad=4)
