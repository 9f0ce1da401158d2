"""Does a policy that decides by what it measures while it trains find a better trade-off than a period?

Gradient norms, directions of updates, features' drift, a plateau of map50: their thresholds are drawn here.
What such a policy costs is known only afterwards, so that Optuna's ``tpe`` draws, and their trials share no
beginnings. ``step`` is among the baselines, as what they have to beat.
"""

from typing import Any

BASELINES = [
    {"freezing.policy": "full"},
    {"freezing.policy": "frozen"},
    {"freezing.policy": "step", "freezing.rho": 2},
    {"freezing.policy": "step", "freezing.rho": 4},
]
SAMPLER = "tpe"
CONSTRAINTS = {"low <= high": lambda low, high: low <= high}

POLICIES = ["gradnorm", "aimd", "drift", "plateau"]


def space(trial: Any, config: Any = None) -> dict[str, Any]:
    """A policy, then its own thresholds, each under a name of its own."""
    epochs = config.training.epochs if config is not None else 12
    policy = trial.suggest_categorical("policy", POLICIES)
    overrides: dict[str, Any] = {"freezing.policy": policy}
    if policy == "gradnorm":
        overrides["freezing.percentile"] = trial.suggest_float("percentile", 10.0, 90.0)
        overrides["freezing.window"] = trial.suggest_int("window", 1, max(1, epochs // 4))
        overrides["freezing.recheck"] = trial.suggest_int("gradnorm_recheck", 1, max(1, epochs // 2))
    if policy == "aimd":
        overrides["freezing.threshold"] = trial.suggest_float("threshold", 0.01, 0.9, log=True)
        overrides["freezing.max_rho"] = trial.suggest_int("max_rho", 2, max(2, epochs // 2))
    if policy == "drift":
        overrides["freezing.low"] = trial.suggest_float("low", 0.001, 0.2, log=True)
        overrides["freezing.high"] = trial.suggest_float("high", 0.001, 0.2, log=True)
        overrides["freezing.recheck"] = trial.suggest_int("drift_recheck", 2, max(2, epochs // 2))
    if policy == "plateau":
        overrides["freezing.patience"] = trial.suggest_int("patience", 1, max(1, epochs // 4))
        overrides["freezing.min_delta"] = trial.suggest_float("min_delta", 0.001, 0.05, log=True)
    return overrides
