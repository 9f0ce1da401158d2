"""What MLflow costs a training: seconds inside tracker calls, and by the clock, beside the same training
without MLflow; with a sqlite store that answers, one that is locked, and a server that is not there.

``python -m benchmarks.tracking``; each training is that of ``--config`` with a few epochs.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.config import Config, load_config, with_overrides
from dbf_ray.run import run
from dbf_ray.run.summary import machine
from dbf_ray.tracking import read_epochs

AWAY = "http://127.0.0.1:9"
WANTED = 0.02  # of an epoch's seconds, at most


def measure(config: Config, folder: Path, name: str, uri: str | None) -> dict[str, Any]:
    """One training: ``seconds`` of its epochs, ``tracking_share`` of them, and ``end_seconds``."""
    keys = {"name": name, "runs_dir": str(folder), "tracking.mlflow": uri is not None, "tracking.uri": uri}
    summary = run(with_overrides(config, keys), quiet=True)
    records = read_epochs(folder / name)
    last = records[-1]["time"]
    return {
        "store": name,
        "seconds": records[-1]["time"] - records[0]["time"],
        "tracking_share": summary["tracking_share"],
        "end_seconds": time.time() - last,
    }


@contextlib.contextmanager
def locked(file: Path, seconds: float) -> Iterator[None]:
    """Somebody holds the sqlite file for a while."""
    held = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    held.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(seconds, held.rollback)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        held.close()


def compare(config: Config, folder: Path, lock_seconds: float) -> list[dict[str, Any]]:
    """A row for each store: the first one is warmed up, so that no row has what is done once."""
    uri = f"sqlite:///{folder}/mlflow.db"
    measure(config, folder, "warm-up", uri)
    rows = [measure(config, folder, "none", None), measure(config, folder, "sqlite", uri)]
    with locked(folder / "mlflow.db", lock_seconds):
        rows.append(measure(config, folder, "locked", uri))
    return [*rows, measure(config, folder, "away", AWAY)]


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Print a table."""
    parser = make_parser(
        "python -m benchmarks.tracking", __doc__ or "", sections=("", "data", "detector", "training")
    )
    parser.add_argument("--lock-seconds", type=float, default=30.0, help="(default: %(default)s)")
    options, overrides = parse(parser, arguments)
    usual = {"training.epochs": 4, "freezing.policy": "full"}
    config = load_config(options.config or "demo", {**usual, **overrides})
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(config, Path(folder), options.lock_seconds)
    print("| store | epochs, s | share in tracker calls | end, s |\n|---|---:|---:|---:|")
    for row in rows:
        share = f"{100 * row['tracking_share']:.2f} %"
        print(f"| {row['store']} | {row['seconds']:.1f} | {share} | {row['end_seconds']:.1f} |")
    result = {"rows": rows, "worst": max(row["tracking_share"] for row in rows), "machine": machine()}
    print(f"at most {100 * result['worst']:.2f} % of the epochs' seconds (wanted: {100 * WANTED:.0f} %)")
    if options.json:
        print_json(result)
    return result


if __name__ == "__main__":
    sys.exit(run_command(command))
