"""Draws box_convention.png, the picture in docs/geometry.md, with the package's own conversions.

Run from the repository's root: ``python docs/pictures/draw_box_convention.py``
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch

from dbf_ray.geometry import boxes_to_corners, canonicalize

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Arc, Polygon

INK, MUTED, BOX, ANGLE = "#1f2933", "#6b7785", "#0072b2", "#d55e00"
CORNER_NAMES = ("1", "2", "3", "4")


def draw_box(
    axes: Axes, box: tuple[float, float, float, float, float], color: str = BOX
) -> list[tuple[float, float]]:
    """Outline a box (cx, cy, w, h, angle in degrees) with numbered corners; returns them."""
    flat = boxes_to_corners(torch.tensor([box], dtype=torch.float64))[0].tolist()
    corners = list(zip(flat[0::2], flat[1::2], strict=True))
    axes.add_patch(Polygon(corners, closed=True, facecolor=color + "22", edgecolor=color, linewidth=1.8))
    cx, cy = box[:2]
    for name, (x, y) in zip(CORNER_NAMES, corners, strict=True):
        axes.plot(x, y, "o", color=color, markersize=5)
        away = 15 / ((x - cx) ** 2 + (y - cy) ** 2) ** 0.5
        axes.text(
            x + (x - cx) * away, y + (y - cy) * away, name, color=color, ha="center", va="center", fontsize=10
        )
    return corners


def frame(axes: Axes, title: str, width: float, height: float) -> None:
    """An image's frame: x to the right, y down."""
    axes.set(xlim=(-14, width), ylim=(height, -14), aspect="equal")
    axes.set_title(title, fontsize=11, color=INK, loc="left", pad=10)
    axes.axis("off")
    for end, name, place in (((60, 0), "x", (68, 0)), ((0, 60), "y", (0, 70))):
        axes.annotate("", end, (0, 0), arrowprops={"arrowstyle": "->", "color": MUTED, "lw": 1.2})
        axes.text(*place, name, color=MUTED, ha="center", va="center", fontsize=10)


def draw_parts(axes: Axes) -> None:
    """What the five numbers are."""
    box = (165.0, 125.0, 190.0, 80.0, 30.0)
    cx, cy, _, _, angle = box
    frame(axes, "(cx, cy, w, h, angle) = (165, 125, 190, 80, 30)", 310, 245)
    corners = draw_box(axes, box)
    axes.plot([cx, cx + 128], [cy, cy], "--", color=MUTED, linewidth=1)
    (x2, y2), (x3, y3) = corners[1], corners[2]
    middle = ((x2 + x3) / 2, (y2 + y3) / 2)
    axes.plot([cx, middle[0]], [cy, middle[1]], "-", color=ANGLE, linewidth=1.2)
    # matplotlib's arcs run from x to y; y points down here, so counter-clockwise as seen is the negative
    # direction
    axes.add_patch(Arc((cx, cy), 124, 124, theta1=-angle, theta2=0, color=ANGLE, linewidth=1.8))
    axes.text(cx + 67, cy - 17, "30°", color=ANGLE, fontsize=11, va="center")
    axes.plot(cx, cy, "+", color=INK, markersize=10)
    axes.text(cx - 6, cy + 15, "(cx, cy)", color=INK, fontsize=10, ha="center")
    for name, (a, b) in {"w": (0, 1), "h": (1, 2)}.items():
        x, y = (corners[a][0] + corners[b][0]) / 2, (corners[a][1] + corners[b][1]) / 2
        reach = ((x - cx) ** 2 + (y - cy) ** 2) ** 0.5
        axes.text(
            x + (x - cx) / reach * 13,
            y + (y - cy) / reach * 13,
            name,
            color=BOX,
            fontsize=13,
            style="italic",
            ha="center",
            va="center",
        )


def draw_angles(axes: Axes) -> None:
    """The same box at several angles."""
    frame(axes, "canonical boxes: w ≥ h and −90 ≤ angle < 90", 410, 245)
    for index, angle in enumerate((-90.0, -60.0, -30.0, 0.0, 30.0, 60.0)):
        x, y = 105 + 122 * (index % 3), 66 + 118 * (index // 3)
        draw_box(axes, (x, y, 80.0, 34.0, angle))
        axes.text(x, y, f"{angle:.0f}°".replace("-", "−"), color=ANGLE, fontsize=10, ha="center", va="center")


def draw_names(axes: Axes) -> None:
    """Names of one rectangle, and the one that canonicalize chooses."""
    names = torch.tensor(
        [
            [160.0, 105.0, 150.0, 60.0, 20.0],
            [160.0, 105.0, 60.0, 150.0, -70.0],
            [160.0, 105.0, 150.0, 60.0, 200.0],
        ]
    )
    frame(axes, "canonicalize: many names, one (dark)", 310, 245)
    draw_box(axes, tuple(canonicalize(names)[0].tolist()))
    for row, box in enumerate(names.tolist()):
        text = f"w {box[2]:.0f}, h {box[3]:.0f}, angle {box[4]:.0f}"
        axes.text(
            160,
            203 + 18 * row,
            text.replace("-", "−"),
            color=INK if row == 0 else MUTED,
            fontsize=10,
            ha="center",
        )


def main() -> None:
    """Draw the three panels side by side."""
    with plt.rc_context({"font.family": ["DejaVu Sans"]}):
        figure, panels = plt.subplots(
            1, 3, figsize=(13.2, 3.7), width_ratios=(324, 424, 324), constrained_layout=True
        )
        for draw, axes in zip((draw_parts, draw_angles, draw_names), panels, strict=True):
            draw(axes)
        figure.savefig(Path(__file__).with_name("box_convention.png"), dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
