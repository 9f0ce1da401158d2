"""Command lines for a person to copy."""

from __future__ import annotations

import shlex

LATER = "the next run beside it delivers them, or `dbf compare --sync` does"


def again(place: str, name: str) -> str:
    """The command that trains the run whose configuration is at ``place`` again."""
    return f"dbf train --config {shlex.quote(place)} --name {shlex.quote(f'{name}-again')}"
