"""A trial of the study as a row of its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dbf_ray.reports.objectives import Objectives
from dbf_ray.reports.pareto import Reference
from dbf_ray.reports.study import OWN_COSTS
from dbf_ray.tracking import read_epochs


def row_of(trial: FrozenTrial, folder: Path, values: Mapping[str, float]) -> dict[str, Any]:
    """The trial as ``dbf_ray.reports.study_result`` takes it.

    Args:
        trial: a row of Optuna's study.
        folder: where run folders are.
        values: what the study itself says of the trial, by name, instead of what its summary does.
    """
    setting, result = trial.user_attrs["setting"], trial.user_attrs.get("result", {})
    more = (
        "map50_best",
        "accuracy",
        "map75",
        "map50_95",
        "device_seconds",
        "energy_joules",
        "peak_memory_bytes",
        "wall_seconds",
        "executed_flops",
        "allreduce_bytes",
        "budget",
        "num_stages",
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
    of_parts = [name for name in result if name.startswith(("ap50/", "merged/"))]
    row |= {name: result[name] for name in (*more, *of_parts) if name in result}
    row |= {name: result.get(name) if complete else None for name in ("map50", "compute_ratio")}
    if complete:
        row |= dict(values)
    if trial.datetime_complete is not None:
        row["completed"] = trial.datetime_complete.isoformat()
    if "epochs_trained" not in row:  # what it has of its own all the same
        done = read_epochs(folder / str(number))
        own = [epoch for epoch in done if "inherited" not in epoch]
        spent = {name: sum(epoch.get(name) or 0 for epoch in own) for name in OWN_COSTS}
        row |= {"epochs": len(done), "epochs_trained": len(own), "own": spent}
    if (known := trial.user_attrs.get("known")) is not None:  # trained by another study
        row |= {"known": known, "epochs_trained": 0, "own": dict.fromkeys(OWN_COSTS, 0)}
    failure = {} if complete else {"failure": trial.user_attrs.get("failure")}
    return row | {"seeds": [], **{key: value for key, value in failure.items() if value is not None}}


def kept_reference(study: optuna.Study, objectives: Objectives) -> Reference | None:
    """What a study's hypervolume is measured from with these objectives, once :func:`keep_reference` fixed
    it.
    """
    kept = study.user_attrs.get("references", {}).get(" ".join(objectives.names()))
    return None if kept is None else Reference(*map(tuple, kept))


def keep_reference(study: optuna.Study, objectives: Objectives, result: Mapping[str, Any]) -> None:
    """Fix the reference of a result for these objectives, so that later hypervolumes can be compared."""
    now = {" ".join(objectives.names()): [result["reference"], result["ideal"]]}
    study.set_user_attr("references", study.user_attrs.get("references", {}) | now)
