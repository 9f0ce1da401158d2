"""How often does the backbone have to be trained? All periods rho of the policy ``step``, between the
baselines ``full`` and ``frozen``.

A search space is a Python file with two names, and ``dbf search --space FILE`` reads it:

BASELINES
    A list of overrides, each a mapping of dotted configuration keys to values. They are trained first and
    once, whether or not the space could draw them. Keep ``full`` and ``frozen`` in it: the study's
    hypervolume is measured from behind the worst of them.

space(trial) or space(trial, config)
    Draws from an Optuna trial and returns overrides. Any key of the configuration may be drawn
    (``dbf train --help`` lists them) and draws may depend on each other::

        def space(trial):
            overrides = {"freezing.policy": trial.suggest_categorical("policy", ["full", "step"])}
            if overrides["freezing.policy"] == "step":
                overrides["freezing.rho"] = trial.suggest_int("rho", 2, 12)
            overrides["training.lr"] = trial.suggest_float("lr", 1e-4, 1e-3, log=True)
            return overrides

    ``config`` is the configuration that the overrides are laid over.

SAMPLER
    Optional: what is tried next, if nobody says so (``grid``: all settings; docs/search.md has the others).

CONSTRAINTS
    Optional: draws that are no settings, as words and a function of parameters that has to hold::

        CONSTRAINTS = {"phase < rho": lambda phase, rho: phase < rho}

Settings that train the same are trained once, however they are written; when nothing new is left to draw, the
search ends.
"""

from typing import Any

BASELINES = [{"freezing.policy": "full"}, {"freezing.policy": "frozen"}]
SAMPLER = "grid"

LARGEST_RHO = (
    20  # with more epochs than this, longer periods are hardly different from training in epoch 0 only
)


def space(trial: Any, config: Any = None) -> dict[str, Any]:
    """rho from 2 (1 is the baseline ``full``) to the number of epochs (any longer period trains in epoch 0
    only).
    """
    largest = min(LARGEST_RHO, config.training.epochs) if config is not None else LARGEST_RHO
    return {"freezing.policy": "step", "freezing.rho": trial.suggest_int("rho", 2, max(2, largest))}
