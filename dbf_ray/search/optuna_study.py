"""A study's file: Optuna's, with its sampler."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import optuna
from optuna.samplers import BaseSampler, TPESampler

from dbf_ray.errors import ConfigError
from dbf_ray.tracking.urls import sqlite_url

DIRECTIONS: tuple[Literal["maximize"], Literal["minimize"]] = ("maximize", "minimize")
# random trials before TPE's model is used: a third of the study, within these bounds
STARTUP_TRIALS = (4, 10)


def scratch_study(sampler: BaseSampler | None = None) -> optuna.Study:
    """A study in memory, with Optuna's default sampler or another, of which nothing is told."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=list(DIRECTIONS), sampler=sampler)


def open_study(file: Path, name: str, *, trials: int, seed: int) -> optuna.Study:
    """Open or make the study in an sqlite file, with two objectives and Optuna's TPE sampler (independent, as
    is its default for two).

    Raises:
        ConfigError: the file cannot be used, or holds a study with other objectives.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage = optuna.storages.RDBStorage(
            sqlite_url(file), engine_kwargs={"connect_args": {"timeout": 60}}
        )
        study = optuna.create_study(
            storage=storage, study_name=name, directions=list(DIRECTIONS), load_if_exists=True
        )
        before = len(study.get_trials(deepcopy=False))
    except Exception as error:
        raise ConfigError(
            f"cannot open the study {name!r} in {file}: {' '.join(str(error).split())[:300]}; give another "
            "--study"
        ) from error
    low, high = STARTUP_TRIALS
    # opened again: other draws
    study.sampler = TPESampler(seed=seed + before, n_startup_trials=max(low, min(high, trials // 3)))
    return study
