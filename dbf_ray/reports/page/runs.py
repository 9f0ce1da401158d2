"""How a run went, epoch by epoch: what was trained when, and how accurate it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

Records = Sequence[Mapping[str, Any]]
Epochs = Mapping[str, Records]
"""Records of ``epochs.jsonl`` by the name of a run's folder within its study: ``3``, ``3-seed-1``."""


def folder_of(run: Mapping[str, Any]) -> str:
    """The name of the folder of a trial, or of one of its ``seeds``."""
    return PurePath(str(run.get("run") or run.get("number", ""))).name


def stages_of(trials: Sequence[Mapping[str, Any]], epochs: Epochs) -> int:
    """How many stages there are in a study whose rows do not say: the most that were frozen; at least 1."""
    said = [trial["num_stages"] for trial in trials if trial.get("num_stages")]
    frozen = [record.get("frozen_stages") or 0 for records in epochs.values() for record in records]
    return max(said or frozen, default=1) or 1


def run_data(run: Mapping[str, Any], records: Records, accuracy: str, stages: int) -> dict[str, Any]:
    """One run.

    Args:
        run: a trial's row, or one of its ``seeds``.
        records: its epochs, inherited ones too.
        accuracy: the name of what is compared.
        stages: of the backbone.

    Returns:
        seed; epochs (0-based); accuracy of each (None where it was not evaluated); trained: for each stage,
        the input's first, and each epoch the share of steps in which it was trained; inherited: how many of
        the epochs others trained.
    """
    ordered = sorted(records, key=lambda record: int(record["epoch"]))
    shares = [_trained(record, stages) for record in ordered]
    return {
        "seed": run.get("seed"),
        "epochs": [record["epoch"] for record in ordered],
        "accuracy": [_rounded(record.get(accuracy)) for record in ordered],
        "trained": [list(stage) for stage in zip(*shares, strict=True)],
        "inherited": sum("inherited" in record for record in ordered),
    }


def shared_in_words(records: Records, study: str) -> str:
    """Which first epochs others trained, and who; empty where nobody did."""
    who = [str(record["inherited"]) for record in records if "inherited" in record]
    if not who:
        return ""
    names = [name.removeprefix(f"{study}-") for name in dict.fromkeys(who)]
    of = f"trial{'s' if len(names) > 1 else ''} {', '.join(names)}"
    return f"epoch 0 trained by {of}" if len(who) == 1 else f"epochs 0 to {len(who) - 1} trained by {of}"


def _trained(record: Mapping[str, Any], stages: int) -> list[float]:
    """Of each stage the share of an epoch's steps in which it was trained."""
    steps = record.get("steps_per_prefix") or {str(record.get("frozen_stages") or 0): 1}
    total = sum(steps.values()) or 1
    return [
        round(sum(count for prefix, count in steps.items() if int(prefix) <= stage) / total, 3)
        for stage in range(stages)
    ]


def _rounded(value: Any) -> float | None:
    return round(value, 5) if isinstance(value, int | float) and value == value else None
