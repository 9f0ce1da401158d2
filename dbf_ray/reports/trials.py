"""How a trial's record is read: whether it counts, and what its setting is called in short."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from dbf_ray.reports.objectives import Objectives

BASELINES = ("full", "frozen")


def is_complete(trial: Mapping[str, Any], objectives: Objectives) -> bool:
    """Whether a trial finished and has both objectives as finite numbers."""
    return str(trial["state"]).upper() == "COMPLETE" and objectives.point(trial) is not None


def is_baseline(trial: Mapping[str, Any]) -> bool:
    """Whether a trial is one of its space's baselines; where its row does not say, one of ``BASELINES``."""
    role = trial.get("role")
    return bool(trial["policy"] in BASELINES if role is None else role == "baseline")


def is_control(trial: Mapping[str, Any]) -> bool:
    """Whether a trial is a shorter full training."""
    return trial.get("role") == "control"


def mean_accuracy(trial: Mapping[str, Any], name: str = "map50") -> float:
    """The mean over a complete trial's seeds, as far as it is known."""
    return float(trial.get("accuracy_mean", trial[name]))


def mean_of(trial: Mapping[str, Any], name: str) -> float:
    """Mean over a trial's seeds of a measured value; NaN where none has it."""
    values = [run[name] for run in (trial, *(trial.get("seeds") or ())) if run.get(name) is not None]
    return fmean(values) if values else math.nan


def parameters(trial: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a trial's policy; ``rho`` also where only the trial's own field names it."""
    known = dict(trial.get("parameters") or {})
    if trial.get("rho") is not None:
        known.setdefault("rho", trial["rho"])
    return known


def setting(trial: Mapping[str, Any]) -> str:
    """A trial's policy with its parameters, for example ``step(rho=4)``; of a control its epochs."""
    if is_control(trial):
        return f"{trial['policy']} with {trial['epochs']} epochs"
    inside = ", ".join(f"{key}={brief(value)}" for key, value in parameters(trial).items())
    return f"{trial['policy']}({inside})" if inside else str(trial["policy"])


def brief(value: Any) -> str:
    """A parameter's value as short text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def short_label(trial: Mapping[str, Any]) -> str:
    """What stands beside a trial's point, whose colour tells the policy: ``ρ=4``, or the policy's first
    parameter, or its name; of a control its epochs.
    """
    if is_control(trial):
        return f"{trial['epochs']} epochs"
    known, policy = parameters(trial), str(trial["policy"])
    if "rho" in known:
        return f"ρ={brief(known['rho'])}"
    first = next((f"{key}={brief(value)}" for key, value in known.items()), policy)
    return first if len(first) <= 14 else policy
