"""The record that every run leaves in its own folder, whatever else is switched on.

``config.yaml`` (complete, reusable), ``epochs.jsonl`` (one JSON object a line and epoch), ``summary.json``
when the run is done, or ``failure.json`` while it is not because it failed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from dbf_ray.files import write_json, write_text
from dbf_ray.values import finite

CONFIG = "config.yaml"
EPOCHS = "epochs.jsonl"
SUMMARY = "summary.json"
FAILURE = "failure.json"


class JsonlTracker:
    """Writes a run's record to ``directory``; survives being killed at any moment."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self._known: set[int] = set()

    def start(self, config: dict[str, Any], facts: dict[str, Any], resume_epoch: int) -> None:
        """Write config.yaml and drop what a resumed run will do again: epochs from ``resume_epoch`` on, a
        torn line, an old end, and files that a process was writing when it was killed.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, EPOCHS, SUMMARY, FAILURE):
            for abandoned in self.directory.glob(f".{name}.*"):
                abandoned.unlink(missing_ok=True)
        write_text(self.directory / CONFIG, yaml.safe_dump(finite(config), sort_keys=False))
        for ending in (SUMMARY, FAILURE):
            (self.directory / ending).unlink(missing_ok=True)
        kept = [record for record in read_epochs(self.directory) if record["epoch"] < resume_epoch]
        write_epochs(self.directory, kept)
        self._known = {record["epoch"] for record in kept}

    def epoch(self, record: dict[str, Any]) -> None:
        """Append the epoch; if it is known already, the new record takes its place."""
        if record["epoch"] in self._known:
            others = [known for known in read_epochs(self.directory) if known["epoch"] != record["epoch"]]
            write_epochs(self.directory, [*others, record])
            return
        with (self.directory / EPOCHS).open("a", encoding="utf-8") as stream:
            stream.write(_line(record))
            stream.flush()
            os.fsync(stream.fileno())
        self._known.add(record["epoch"])

    def finish(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        write_json(self.directory / SUMMARY, summary)
        (self.directory / FAILURE).unlink(missing_ok=True)

    def fail(self, reason: str, killed: bool = False) -> None:
        """Write failure.json."""
        write_json(self.directory / FAILURE, {"reason": reason})


def read_epochs(directory: Path) -> list[dict[str, Any]]:
    """The epoch records in ``directory``, by epoch, each once (the last written wins); torn or foreign lines
    are left out.
    """
    file = directory / EPOCHS
    if not file.exists():
        return []
    records: dict[int, dict[str, Any]] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("epoch"), int):
            records[record["epoch"]] = record
    return [records[epoch] for epoch in sorted(records)]


def write_epochs(directory: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write epochs.jsonl anew, by epoch, in one atomic step."""
    ordered = sorted(records, key=lambda record: record["epoch"])
    write_text(directory / EPOCHS, "".join(_line(record) for record in ordered))


def read_summary(directory: Path) -> dict[str, Any] | None:
    """The content of summary.json, or None while the run is not finished (or the file cannot be read)."""
    try:
        summary = json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return summary if isinstance(summary, dict) else None


def _line(record: dict[str, Any]) -> str:
    return json.dumps(finite(record)) + "\n"
