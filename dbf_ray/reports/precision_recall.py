"""Precision against recall, a curve for each class: the plain data come in, a picture goes out."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dbf_ray.reports.style import MATPLOTLIB, MUTED, RUNS

_ROWS = 20  # of a legend's column


class ClassCurve(NamedTuple):
    """Recall [k] and precision [k] of a class after each of its detections, best score first; ``ap`` is the
    area under it (VOC2012).
    """

    name: str
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    ap: float


def precision_recall_png(
    curves: Sequence[ClassCurve], title: str, width: float = 8.0, dpi: int = 110
) -> bytes:
    """The picture as PNG bytes, classes in the legend by AP, the best first; precision is drawn as AP takes
    it, not rising with recall. Width in inches, of the axes; a legend of many classes adds to it.
    """
    columns = max(1, math.ceil(len(curves) / _ROWS))
    whole = width + 2.3 * columns
    with mpl.rc_context(MATPLOTLIB):
        figure = Figure(figsize=(whole, 5.6), dpi=dpi)
        FigureCanvasAgg(figure)
        figure.text(0.02, 0.94, title, fontsize=13, fontweight="bold")
        axes = figure.add_axes((0.75 / whole, 0.11, (width - 0.95) / whole, 0.77))
        for place, curve in enumerate(sorted(curves, key=lambda curve: -curve.ap)):
            recall = np.concatenate([[0.0], curve.recall, curve.recall[-1:]])
            envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
            precision = np.concatenate([envelope[:1], envelope, [0.0]]) if len(envelope) else np.zeros(1)
            axes.step(
                recall,
                precision,
                where="pre",
                color=RUNS[place % len(RUNS)],
                linestyle=("-", "--", ":")[place // len(RUNS) % 3],
                linewidth=1.8,
                label=f"{curve.name[:24]}  {curve.ap:.3f}",
                clip_on=False,
            )
        axes.set_xlabel("recall at rotated IoU 0.5")
        axes.set_ylabel("precision")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.grid(True)
        if curves:
            axes.legend(
                title="class, AP50", loc="upper left", bbox_to_anchor=(1.02, 1.02), ncols=columns, fontsize=9
            )
        else:
            axes.text(0.5, 0.5, "no object counts", ha="center", color=MUTED)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
