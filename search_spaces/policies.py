"""Which rule to freeze by, and with what parameters? Schedules of the whole backbone, schedules by stages,
and the controls.

``rho.py`` explains what a search space is. A smaller learning rate is a baseline here, and budgets at random
places are among what is drawn: a policy that is not better than these controls has not shown that freezing,
or its timing, does anything.
"""

from typing import Any

BASELINES = [
    {"freezing.policy": "full"},
    {"freezing.policy": "frozen"},
    {"freezing.policy": "lr_scale", "freezing.factor": 0.1},
]

POLICIES = [
    "step",
    "random_budget",
    "front",
    "back",
    "warmup_step",
    "cosine",
    "gradual_unfreeze",
    "gradual_freeze",
    "multirate_step",
]


def space(trial: Any, config: Any = None) -> dict[str, Any]:
    """A policy, then its own parameters; settings that come to the same timeline are trained once."""
    epochs = config.training.epochs if config is not None else 12
    policy = trial.suggest_categorical("policy", POLICIES)
    overrides: dict[str, Any] = {"freezing.policy": policy}
    if policy in ("step", "warmup_step", "multirate_step"):
        overrides["freezing.rho"] = trial.suggest_int(
            "rho", 1 if policy == "multirate_step" else 2, max(2, epochs // 2)
        )
    if policy == "warmup_step":
        overrides["freezing.warmup"] = trial.suggest_int("warmup", 1, max(1, epochs // 2))
    if policy == "multirate_step":
        overrides["freezing.growth"] = trial.suggest_float("growth", 1.5, 3.0)
    if policy in ("random_budget", "front", "back"):
        overrides["freezing.budget"] = trial.suggest_int("budget", 1, max(1, epochs - 1))
    if policy == "random_budget":
        overrides["freezing.draw"] = 0  # the same places with every seed
    if policy == "cosine":
        overrides["freezing.start"] = trial.suggest_float("start", 0.0, 1.0)
        overrides["freezing.end"] = trial.suggest_float("end", 0.0, 1.0)
    if policy == "gradual_unfreeze":
        overrides["freezing.every"] = trial.suggest_int("every", 1, epochs)
    if policy == "gradual_freeze":
        overrides["freezing.t0"] = trial.suggest_float("t0", 0.0, 0.9)
        overrides["freezing.p"] = trial.suggest_categorical("p", [1.0, 3.0])
    return overrides
