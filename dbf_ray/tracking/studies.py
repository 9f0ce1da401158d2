"""A study's files, as whoever shows it reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbf_ray.errors import DataError
from dbf_ray.tracking.jsonl import EPOCHS, SUMMARY, read_epochs

RESULT = "pareto.json"
KEYS = ("study", "objectives", "front", "controls", "answer", "history", "epochs_trained", "trials")

Runs = dict[str, list[dict[str, Any]]]
"""Epochs of a study's runs, by the names of their folders within ``trials``."""


def read_study(folder: Path) -> tuple[dict[str, Any], Runs]:
    """The content of a study's pareto.json, and the epochs of its runs as far as they are in ``folder``.

    Raises:
        DataError: there is none, it cannot be read, or it is another version's.
    """
    file = folder / RESULT
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder} must have a {RESULT}, and has none") from None
    except ValueError as error:
        raise DataError(f"{file} must be whole JSON, and cannot be read ({error})") from None
    missing = [key for key in KEYS if key not in result] if isinstance(result, dict) else list(KEYS)
    if missing:
        raise DataError(f"{file} must have {missing[0]}, and has not: another version of dbf_ray wrote it")
    return result, read_runs(result, folder)


def is_study(folder: Path) -> bool:
    """Whether a search has made a folder, finished or not."""
    return any((folder / name).is_file() for name in (RESULT, "study.db"))


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a single run."""
    return any((folder / name).is_file() for name in (EPOCHS, SUMMARY))


def read_runs(result: Mapping[str, Any], folder: Path) -> Runs:
    """The epochs of a study's runs, as far as they are in ``folder``, wherever it was moved to."""
    runs = [run for trial in result["trials"] for run in (trial, *(trial.get("seeds") or ()))]
    names = {Path(run["run"]).name for run in runs if run.get("run")}
    found = {name: read_epochs(folder / "trials" / name) for name in sorted(names)}
    return {name: epochs for name, epochs in found.items() if epochs}
