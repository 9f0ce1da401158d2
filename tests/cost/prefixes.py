"""Costs of all frozen prefixes at once."""

from __future__ import annotations

from dbf_ray.cost import FlopTable


def per_prefix(table: FlopTable, height: int, width: int) -> list[int]:
    """Training FLOPs of one image for each prefix 0..K."""
    return [table(height, width, n) for n in range(table.num_stages + 1)]
