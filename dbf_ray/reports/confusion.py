"""What each class was taken for: counts come in, a picture goes out."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dbf_ray.reports.style import FRONT, INK, MATPLOTLIB, MUTED

_WRITTEN = 30  # classes up to which counts are written into the cells


def confusion_png(counts: NDArray[np.int64], classes: Sequence[str], title: str, dpi: int = 110) -> bytes:
    """The picture as PNG bytes.

    Args:
        counts: [C + 1, C + 1], rows what is there, columns what was found, the last of each background. A
            cell is as dark as its share of its row; the last row, which has no whole, as its share of it too.
        classes: C names.
        title: above it, lines separated by a line break.
    """
    size = len(classes) + 1
    cell = float(np.clip(6.5 / size, 0.3, 0.75))
    names = [name[:22] for name in classes]
    longest = max(len(name) for name in [*names, "background"])
    margin, below = 0.7 + 0.09 * longest, 0.45 + 0.085 * longest
    side, head = cell * size, 0.9
    width, height = max(margin + side + 0.3, 6.2), below + side + head
    with mpl.rc_context(MATPLOTLIB):
        figure = Figure(figsize=(width, height), dpi=dpi)
        FigureCanvasAgg(figure)
        first, *more = title.split("\n")
        figure.text(0.15 / width, 1 - 0.3 / height, first, fontsize=13, fontweight="bold")
        figure.text(0.15 / width, 1 - 0.56 / height, "\n".join(more), fontsize=9, color=MUTED, va="center")
        axes = figure.add_axes((margin / width, below / height, side / width, side / height))
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        shades = LinearSegmentedColormap.from_list("shades", ["white", FRONT])
        axes.imshow(shares, cmap=shades, vmin=0, vmax=1, aspect="auto")
        if size <= _WRITTEN:
            for row, column in zip(*np.nonzero(counts), strict=True):
                color = "white" if shares[row, column] > 0.55 else INK
                text = f"{counts[row, column]:,}"
                axes.text(
                    column, row, text, ha="center", va="center", color=color, fontsize=min(9, 24 * cell)
                )
        axes.set_xticks(range(size), [*names, "missed"], rotation=90, fontsize=9)
        axes.set_yticks(range(size), [*names, "background"], fontsize=9)
        axes.set_xlabel("found as")
        axes.set_ylabel("there is", labelpad=8)
        axes.tick_params(length=0)
        for line in (size - 1.5,):  # background apart
            axes.axhline(line, color=INK, linewidth=0.8)
            axes.axvline(line, color=INK, linewidth=0.8)
        for spine in axes.spines.values():
            spine.set_visible(True)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
