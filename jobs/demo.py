"""The main job on the embedded default: a small search for rho on generated scenes, with a pretrained backbone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs import fetch_weights, search
from jobs.command_line import main

DEMO = ["--config", "jobs/configs/demo.yaml", "--space", "search_spaces/rho.py", "--study", "demo"]


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Fetch the weights if need be, then search; further options are those of jobs.search."""
    fetch_weights.fetch()
    return search.command([*DEMO, *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main(command))
