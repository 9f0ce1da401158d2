"""How much a study is to train."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from dbf_ray.config import Config
from dbf_ray.errors import ConfigError
from dbf_ray.search.budget import Budget
from dbf_ray.search.ceiling import ceiling
from dbf_ray.search.cost import Costs
from dbf_ray.search.settings import Setting
from dbf_ray.search.spaces import SearchSpace

TRIALS = 20
SECONDS = "searched_seconds"  # what Optuna's study calls how long it was searched


def options_of(config: Config, costs: Costs) -> dict[str, Any]:
    """Of :class:`.study.Study`: what is tried next."""
    return {
        "seed": config.seed,
        "sampler": config.search.sampler,
        "costs": costs.known,
        "leave_out": ceiling(config, costs),
    }


def trials_by_default(config: Config, space: SearchSpace, settings: int) -> int:
    """Complete trials that the study shall have where nobody said a number: all of the space with ``grid``
    or a budget, else ``TRIALS``. ``settings``: that the space has, as far as it is known, and baselines.
    """
    search = config.search
    everything = search.epochs or search.hours or (search.sampler or space.sampler) == "grid"
    return settings if everything else TRIALS


def check_budget(config: Config, space: SearchSpace, first: Iterable[Setting]) -> None:
    """Refuse a budget of epochs that does not hold what is trained ``first``, the space's baselines and the
    controls, without which there is nothing to compare with.

    Raises:
        ConfigError: with the least that would do.
    """
    if config.search.epochs is None:
        return
    states = {state for one in first for state in one.states[1:]}
    if config.search.epochs < len(states):
        raise ConfigError(
            f"search.epochs must be at least {len(states)}, which the baselines of {space.file} and the "
            f"controls take, got {config.search.epochs}; give --epochs {len(states)} or more, or "
            "--search.controls []"
        )


def budget_of(config: Config, rows: list[dict[str, Any]], seconds: float) -> Budget:
    """The budget of a study that has these rows and was searched for so long."""
    own = [(row["own"].get("wall_seconds") or 0.0, row["epochs_trained"]) for row in rows if "own" in row]
    paces = [spent / epochs for spent, epochs in own if epochs and spent]
    return Budget(
        config.search.epochs,
        config.search.hours,
        trained=sum(epochs for _, epochs in own),
        seconds=seconds,
        seconds_an_epoch=statistics.fmean(paces) if paces else None,
    )
