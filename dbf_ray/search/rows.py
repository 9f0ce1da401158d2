"""A trial of the study as a row of its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

OBJECTIVES = ("map50", "compute_ratio")


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
    )
    complete = trial.state == TrialState.COMPLETE
    row = {name: setting[name] for name in ("policy", "parameters", "rho", "seed")}
    row |= {
        "number": trial.number,
        "state": trial.state.name,
        "run": str(folder / str(trial.number)),
        "overrides": setting["overrides"],
    }
    row |= {name: result.get(name) if complete else None for name in OBJECTIVES}
    row |= {name: result[name] for name in more if name in result}
    return row | {
        name: trial.user_attrs[name] for name in ("failure", "retry_of") if name in trial.user_attrs
    }
