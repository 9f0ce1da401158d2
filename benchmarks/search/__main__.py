"""Searches measured: learning curves are recorded once by real trainings, then searches are replayed on them;
and what a real search costs beside its trainings.

python -m benchmarks.search record --seed 0 --out FILE.csv --data.root DIR --detector.weights_backbone FILE
python -m benchmarks.search replay FILE.csv --out RESULT.json
python -m benchmarks.search overhead
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.search.commands import overhead_command, record_command, replay_command
from dbf_ray.cli.options import run_command
from dbf_ray.errors import ConfigError

COMMANDS: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "record": record_command,
    "replay": replay_command,
    "overhead": overhead_command,
}


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run one of the three."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["-h"], ["--help"]):
        print(__doc__)
        raise SystemExit(0)
    if not given or given[0] not in COMMANDS:
        raise ConfigError(f"the command must be one of {', '.join(COMMANDS)}, got {' '.join(given[:1])!r}")
    return COMMANDS[given[0]](given[1:])


if __name__ == "__main__":
    sys.exit(run_command(command))
