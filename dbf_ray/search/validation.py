"""Val, reported once and for the front alone: a search selects on images held out of train, so its own map50
values are those it chose by.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dbf_ray.config import Config
from dbf_ray.errors import WeightsError
from dbf_ray.files import write_json
from dbf_ray.tracking import read_summary
from dbf_ray.training.checkpoint import whole_checkpoint
from dbf_ray.values import finite

FILE = "val.json"


def reported(result: Mapping[str, Any]) -> set[int]:
    """The trials whose val figures are reported: the front, observed and believed, and what is recommended.

    Args:
        result: content of pareto.json.
    """
    named = (result["knee"], result["within"]["number"])
    return {*result["front"], *result["front_posterior"], *(one for one in named if one is not None)}


def to_validate(
    result: Mapping[str, Any], config: Config, show: Callable[[str], None], here: bool = True
) -> list[tuple[Path, Path]]:
    """What is still to be evaluated on val: run folders, of repeats too, with their last checkpoints.

    Nothing where trials were compared on val itself.

    Args:
        result: content of pareto.json.
        config: the study's.
        show: called with a line for each whose checkpoint is not there.
        here: whether checkpoints are looked for on this machine; else they may be on another.
    """
    if config.data.selection_fraction == 0:
        return []
    numbers, left = reported(result), []
    rows = [row for row in result["trials"] if row["number"] in numbers]
    for folder in (Path(run["run"]) for row in rows for run in (row, *row["seeds"])):
        summary = read_summary(folder)
        if summary is None or (folder / FILE).exists() or not summary.get("checkpoint"):
            continue
        checkpoint = Path(str(summary["checkpoint"]))
        try:
            left.append((folder, whole_checkpoint(checkpoint) if here else checkpoint))
        except WeightsError as error:
            show(f"trial {folder.name}: not evaluated on val: {error}")
    return left


def record(folder: Path, metrics: Mapping[str, Any]) -> str:
    """Keep what val said of the training in ``folder``; returns a line about it."""
    write_json(folder / FILE, finite(dict(metrics)))
    summary = read_summary(folder) or {}
    return (
        f"trial {folder.name}, on the front: val map50 {_text(metrics['map50'])} (selection map50 "
        f"{_text(summary.get('map50'))})"
    )


def val_map50(trial: Path) -> float | None:
    """map50 on val of a trial's run folder, None where it was not evaluated there."""
    try:
        value = json.loads((trial / FILE).read_text(encoding="utf-8"))["map50"]
    except (OSError, ValueError, KeyError):
        return None
    return value if isinstance(value, float) else None


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
