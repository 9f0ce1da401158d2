"""A trial of the study as a row of its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from dbf_ray.reports.study import OWN_COSTS
from dbf_ray.tracking import read_epochs

OBJECTIVES = ("map50", "compute_ratio")


def fault_of(summary: Mapping[str, Any] | None) -> str | None:
    """Why the summary of a trial is no result; None: it is one."""
    if summary is None:
        return "the trial ended without a result"
    if summary.get("stopped_early"):
        return "the training was stopped before its last epoch"
    for name in OBJECTIVES:
        value = summary.get(name)
        if not (isinstance(value, int | float) and math.isfinite(value)):
            return f"{name} must be a finite number, got {value!r}"
    return None


def row_of(trial: FrozenTrial, folder: Path) -> dict[str, Any]:
    """The trial as ``dbf_ray.reports.study_result`` takes it; ``folder``: where run folders are."""
    setting, result = trial.user_attrs["setting"], trial.user_attrs.get("result", {})
    more = (
        "map50_best",
        "map75",
        "map50_95",
        "device_seconds",
        "wall_seconds",
        "executed_flops",
        "budget",
        "peak_memory_bytes",
        "world_size",
        "data_digest",
        "epochs",
        "epochs_trained",
        "forked_from",
        "own",
    )
    complete = trial.state == TrialState.COMPLETE
    number = trial.user_attrs["number"]
    row = {name: setting[name] for name in ("policy", "parameters", "rho", "seed")}
    row |= {
        "number": number,
        "state": trial.state.name,
        "run": str(folder / str(number)),
        "overrides": setting["overrides"],
    }
    row |= {name: result.get(name) if complete else None for name in OBJECTIVES}
    row |= {name: result[name] for name in more if name in result}
    if "epochs_trained" not in row:  # what it has of its own all the same
        done = read_epochs(folder / str(number))
        own = [epoch for epoch in done if "inherited" not in epoch]
        spent = {name: sum(epoch.get(name) or 0 for epoch in own) for name in OWN_COSTS}
        row |= {"epochs": len(done), "epochs_trained": len(own), "own": spent}
    failure = {} if complete else {"failure": trial.user_attrs.get("failure")}
    return row | {"seeds": [], **{key: value for key, value in failure.items() if value is not None}}
