"""Does the best schedule change with the backbone's learning rate? A policy, the backbone's share of the
learning rate, and when the policy begins.

A slower backbone is a rival of a frozen one: with a small factor ``full`` may do what a schedule does, so
that ``full`` with a tenth is among the baselines. Settings with unlike factors share no beginnings.
"""

from typing import Any

BASELINES = [
    {"freezing.policy": "full"},
    {"freezing.policy": "frozen"},
    {"freezing.policy": "full", "training.backbone_lr_factor": 0.1},
]
CONSTRAINTS = {"phase < rho": lambda phase, rho: phase < rho}

POLICIES = ["full", "step", "warmup_step", "front", "back"]
FACTORS = [0.1, 0.3, 1.0]  # few, so that settings of one factor share their beginnings


def space(trial: Any, config: Any = None) -> dict[str, Any]:
    """A policy with its period and phase, or its budget, and the backbone's factor."""
    epochs = config.training.epochs if config is not None else 12
    policy = trial.suggest_categorical("policy", POLICIES)
    overrides: dict[str, Any] = {"freezing.policy": policy}
    overrides["training.backbone_lr_factor"] = trial.suggest_categorical("backbone_lr_factor", FACTORS)
    longest = max(2, epochs // 2)
    if policy in ("step", "warmup_step"):
        overrides["freezing.rho"] = trial.suggest_int("rho", 2, longest)
    if policy == "step":
        overrides["freezing.phase"] = trial.suggest_int("phase", 0, longest - 1)
    if policy == "warmup_step":
        overrides["freezing.warmup"] = trial.suggest_int("warmup", 1, max(1, epochs // 2))
    if policy in ("front", "back"):
        overrides["freezing.budget"] = trial.suggest_int("budget", 1, max(1, epochs - 1))
    return overrides
