"""One look for all figures: colours and marks of policies, colours of runs and classes, fonts.

Most colours are those of Okabe and Ito ("Color Universal Design", 2008), which colour-blind readers can tell
apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

INK = "#1f2933"
MUTED = "#6b7785"
GRID = "#e4e8ec"
AXIS = "#b4bcc5"
REGION = "#dfeaf4"
FRONT = "#3b5b7a"

# policy -> colour, matplotlib marker, plotly symbol
_POLICIES = {
    "full": ("#1f2933", "s", "square"),
    "frozen": ("#0072b2", "D", "diamond"),
    "step": ("#d55e00", "o", "circle"),
}
_OTHERS = (
    ("#009e73", "^", "triangle-up"),
    ("#cc79a7", "v", "triangle-down"),
    ("#b8860b", "P", "cross"),
    ("#56b4e9", "h", "hexagon"),
    ("#7f3c8d", "X", "x"),
    ("#8c564b", "p", "pentagon"),
)
RUNS = (
    "#1f2933",
    "#d55e00",
    "#0072b2",
    "#009e73",
    "#cc79a7",
    "#b8860b",
    "#56b4e9",
    "#7f3c8d",
    "#8c564b",
    "#e34a6f",
)
CLASSES = (
    "#ff6b35",
    "#2ec4ff",
    "#9bde4b",
    "#ffd23f",
    "#e879f9",
    "#34e0b0",
    "#ff5d8f",
    "#8fa8ff",
    "#f4a259",
    "#c0ff72",
)

MATPLOTLIB: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": AXIS,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def policy_styles(policies: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, matplotlib marker and plotly symbol of each policy: fixed for the known ones, by alphabet for
    others.
    """
    names = sorted(
        set(policies),
        key=lambda name: (list(_POLICIES).index(name) if name in _POLICIES else len(_POLICIES), name),
    )
    others = [name for name in names if name not in _POLICIES]
    return {
        name: _POLICIES[name] if name in _POLICIES else _OTHERS[others.index(name) % len(_OTHERS)]
        for name in names
    }


def pale(color: str, strength: float = 0.38) -> str:
    """A colour ``#rrggbb`` mixed with white: opaque, so that lines beneath do not shine through."""
    parts = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + strength * (part - 255)):02x}" for part in parts)
