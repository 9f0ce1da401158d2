"""What the store shall have of a folder, in plain values: read from the folder's own records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbf_ray.tracking.jsonl import read_epochs
from dbf_ray.tracking.metrics import EPOCHS_DONE, epoch_metrics
from dbf_ray.tracking.spool import RUNNING, Card, now
from dbf_ray.tracking.words import interval_text, objectives, study_note

NOTE = "mlflow.note.content"
FAILURE = "failure"


@dataclass
class Wanted:
    """What a run shall have.

    Attributes:
        marker: the metric that every step has: which steps a store has already.
        steps: (step, milliseconds since 1970, metrics), in order.
        tags: beside those that the run began with.
        latest: metrics whose last value shall be so, whatever was logged at that step before.
    """

    marker: str
    steps: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)


def wanted_of(folder: Path, card: Card) -> Wanted:
    """What the run of a folder shall have, as its files say."""
    tags = {NOTE: card["note"]} if card.get("note") else {}
    if card.get("reason"):
        tags[FAILURE] = card["reason"]
    if card["kind"] == "search":
        wanted = _of_study(folder, card)
        wanted.tags = tags | wanted.tags
        return wanted
    if metrics := card.get("metrics"):
        return Wanted(next(iter(metrics)), [(0, card.get("ended") or now(), dict(metrics))], tags)
    started = card.get("started") or now()
    steps = [
        (step, int(time * 1000) or started + step, metrics)
        for step, time, metrics in epoch_metrics(read_epochs(folder), card.get("full_share") or 1.0)
    ]
    return Wanted(EPOCHS_DONE, steps, tags)


def _of_study(folder: Path, card: Card) -> Wanted:
    try:
        result = json.loads((folder / "pareto.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Wanted("search/trials")
    current = study_metrics(result)
    step = int(current["search/runs"])
    steps = [
        (row["trials"], int(1000 * (row.get("time") or 0)) or now(), _history(row))
        for row in result.get("history") or ()
        if row["trials"] < step
    ]
    ended = card.get("status") != RUNNING
    return Wanted(
        "search/trials",
        [*steps, (step, now(), current)],
        study_tags(result),
        current if ended else {},
    )


def _history(row: Mapping[str, Any]) -> dict[str, float]:
    names = ("trials", "epochs_trained", "hypervolume")
    return {f"search/{name}": float(row[name]) for name in names if row.get(name) is not None}


def study_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Figures of a study as it stands, and accuracy and cost of the setting that it recommends."""
    accuracy, _ = objectives(result)
    complete = [row for row in result["trials"] if row["state"] == "COMPLETE"]
    repeats = [seed for row in complete for seed in row.get("seeds") or () if seed["state"] == "COMPLETE"]
    best = [row[accuracy] for row in complete if row.get(accuracy) is not None]
    found: dict[str, Any] = {
        "search/trials": len(complete),
        "search/runs": len(complete) + len(repeats),
        "search/front": len(result["front"]),
        f"search/best_{accuracy}": max(best, default=None),
        **{
            f"search/{name}": result.get(name)
            for name in ("hypervolume", "hypervolume_gain", "epochs_trained", "epochs_shared")
        },
    }
    if (row := recommended(result)) is not None:
        found["val/accuracy" if row.get("map50") is None else "val/map50"] = row.get(
            "map50", row.get(accuracy)
        )
        found["cost/compute_ratio"] = row.get("compute_ratio")
    return {name: float(value) for name, value in found.items() if value is not None}


def study_tags(result: Mapping[str, Any]) -> dict[str, str]:
    """What a study has found, as tags."""
    front = [row for row in result["trials"] if row["number"] in result["front"]]
    knee, row = result.get("knee"), recommended(result)
    found = {
        "dbf_ray.front": ", ".join(str(row["number"]) for row in front),
        "dbf_ray.intervals": "; ".join(
            f"{row['number']}:{text}" for row in front if (text := interval_text(row))
        ),
        "dbf_ray.knee": "" if knee is None else str(knee),
        "dbf_ray.recommended": "" if row is None else str(row["number"]),
        "dbf_ray.answer": (result.get("answer") or {}).get("text") or "",
        NOTE: study_note(result),
    }
    return {name: text for name, text in found.items() if text}


def recommended(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The row of the setting that a study recommends, if there is one."""
    number = (result.get("answer") or {}).get("number")
    return next((row for row in result["trials"] if row["number"] == number), None)
