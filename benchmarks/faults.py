"""The table of faults: what was killed or spoilt, when, what brings it back, seconds until the next epoch was
on disk, and what was lost.

``python -m benchmarks.faults [NAMES] [--out FILE.jsonl] --json``: real processes, minutes in all; each row
also proves that every epoch is in the record once, that the weights are those of a run that nothing happened
to, that nothing is left running, and that MLflow tells the truth. With --out, rows that the file has are not
measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbf_ray.cli.options import print_json, run_command
from dbf_ray.errors import ConfigError
from dbf_ray.run.summary import machine
from dbf_ray.values import one_line
from tests.faults.place import Place
from tests.faults.rows import Fault, NotHereError, all_faults


def measure(fault: Fault, store: Path) -> dict[str, Any]:
    """One row, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="dbf-fault-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "mlflow.db").write_bytes(store.read_bytes())
        begin = time.monotonic()
        with Place(folder, f"sqlite:///{folder}/mlflow.db").cleared() as place:
            try:
                row = fault.row(place)
            except NotHereError as error:
                row = fault.facts() | {"seconds": None, "lost": f"not measured: {error}"}
            except AssertionError as error:
                row = fault.facts() | {"seconds": None, "lost": f"FAILED: {why(error)}"}
    return row | {"took": round(time.monotonic() - begin, 1)}


def why(error: AssertionError) -> str:
    """What was not as it has to be: the message, or the line that says so; its end, where it is long."""
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return one_line(str(error) or line)[-600:]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as docs/results/faults.md has them."""
    lines = ["| fault | when | back by | back after, s | lost |", "|---|---|---|---:|---|"]
    for row in rows:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        lines.append(f"| {row['harm']} | {row['when']} | {row['back_by']} | {seconds} | {row['lost']} |")
    return "\n".join(lines)


def empty_store(folder: Path) -> Path:
    """MLflow's, in a file; it takes seconds to make one."""
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{folder}/empty.db").search_experiments()
    return folder / "empty.db"


def known_rows(out: Path | None) -> dict[str, dict[str, Any]]:
    """What a file has already, by name."""
    if out is None or not out.exists():
        return {}
    return {row["name"]: row for row in map(json.loads, out.read_text().splitlines())}


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure rows and print the table."""
    faults = all_faults()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"(default: all) {', '.join(faults)}")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="add each row to this file at once")
    parser.add_argument("--json", action="store_true", help="print the rows as one JSON object too")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in faults]:
        raise ConfigError(f"a fault must be one of {', '.join(faults)}, got {unknown[0]}")
    known = known_rows(options.out)
    with tempfile.TemporaryDirectory() as folder:
        store = empty_store(Path(folder))
        for name in options.names or list(faults):
            if name in known:
                continue
            print(f"{name}: {faults[name].harm}", file=sys.stderr, flush=True)
            known[name] = measure(faults[name], store)
            print(f"{name}: {known[name]['lost']}, {known[name]['took']} s", file=sys.stderr, flush=True)
            if options.out is not None and not known[name]["lost"].startswith("FAILED"):
                with options.out.open("a") as stream:
                    stream.write(json.dumps(known[name]) + "\n")
    rows = [known[name] for name in faults if name in known]
    print(table(rows))
    result = {"rows": rows, "machine": machine()}
    if options.json:
        print_json(result)
    if failed := [row["name"] for row in rows if row["lost"].startswith("FAILED")]:
        raise ConfigError(f"every fault must cost nothing, {', '.join(failed)} did not; see above")
    return result


if __name__ == "__main__":
    sys.exit(run_command(command))
