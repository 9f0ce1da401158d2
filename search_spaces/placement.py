"""Does it matter *when* the backbone is trained? Equal numbers of unfrozen epochs, placed periodically,
first, last, and at random.

Each budget is that of a period: ``step(rho)`` trains the backbone in ceil(E / rho) of E epochs, and
``front``, ``back`` and three draws of ``random_budget`` train it as often. Where ``step`` does not lie above
the random ones, its period does nothing that any placement would not.
"""

from typing import Any

BASELINES = [{"freezing.policy": "full"}, {"freezing.policy": "frozen"}]
SAMPLER = "grid"

RHOS = [2, 3, 4, 6, 12]
PLACEMENTS = ["step", "front", "back", "random 0", "random 1", "random 2"]


def space(trial: Any, config: Any = None) -> dict[str, Any]:
    """A period, which says the budget, and a placement of it."""
    epochs = config.training.epochs if config is not None else 12
    rho = trial.suggest_categorical("rho", [rho for rho in RHOS if rho <= epochs] or [1])
    policy, _, draw = trial.suggest_categorical("placement", PLACEMENTS).partition(" ")
    if policy == "step":
        return {"freezing.policy": "step", "freezing.rho": rho}
    placed = {"freezing.policy": policy, "freezing.budget": -(-epochs // rho)}
    if policy == "random":
        placed |= {"freezing.policy": "random_budget", "freezing.draw": int(draw)}
    return placed
