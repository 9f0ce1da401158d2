"""Coverage as a table for a person: with a detector's own defaults and with settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dbf_ray.cli.columns import in_columns

MOST_CLASSES = 20
HEADS = {"at_0.5": "at .5", "at_0.4": "at .4", "under_3_points": "under 3 points"}
Rows = Mapping[str, Any]


def coverage_lines(before: Rows, after: Rows) -> list[str]:
    """All that count, difficult objects, classes with the worst first, sizes; empty groups are left out.

    Args:
        before, after: see :func:`dbf_ray.plan.written.shares`.
    """
    keys = [key for key in after["all"] if key not in ("objects", "covered")]
    head = ["covered", "objects"]
    for name in ("defaults", "as set"):
        head += [name, *(HEADS[key] for key in keys)]
    rows = [
        [
            name,
            str(new["objects"]),
            *(_percent(part[key]) for part in (old, new) for key in ("covered", *keys)),
        ]
        for name, old, new in _groups(before, after)
    ]
    lines = in_columns(head, rows)
    more = sum(row["objects"] > 0 for row in after["classes"].values()) - MOST_CLASSES
    return [*lines, f"and {more} more classes, better covered"] if more > 0 else lines


def _groups(before: Rows, after: Rows) -> Iterator[tuple[str, Rows, Rows]]:
    yield "all", before["all"], after["all"]
    if after["difficult"]["objects"]:
        yield "difficult, not counted else", before["difficult"], after["difficult"]
    worst = sorted(after["classes"].items(), key=lambda pair: pair[1]["covered"] or 0)
    counted = [(name, row) for name, row in worst if row["objects"]]
    for name, row in counted[:MOST_CLASSES]:
        yield name, before["classes"][name], row
    for name, row in after["sizes"].items():
        if row["objects"]:
            yield name, before["sizes"][name], row


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"
