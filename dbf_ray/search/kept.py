"""What stays of a study's checkpoints when its search has ended."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint


def keep_only(numbers: Collection[int], result: Mapping[str, Any], folder: Path) -> None:
    """Of the complete trials and their repeats, leave the last checkpoints of those with these numbers alone,
    without the optimizer's state: they can be evaluated, and predict, but not be trained on.

    Args:
        numbers: of the trials whose checkpoints stay.
        result: content of pareto.json.
        folder: where the trials' run folders are.
    """
    runs = [
        (trial["number"], run["state"], Path(str(run.get("run", trial["number"]))).name)
        for trial in result["trials"]
        for run in (trial, *trial.get("seeds", ()))
    ]
    for number, state_of_run, name in runs:
        checkpoints = folder / name / "checkpoints"
        if state_of_run != "COMPLETE" or not (found := list_checkpoints(checkpoints)):
            continue
        if number not in numbers:
            shutil.rmtree(checkpoints)
            continue
        state, record = load_checkpoint(found[-1])
        if state.pop("optimizer", None) is not None:
            save_checkpoint(checkpoints, state["epoch"], state, record, keep=1)
