"""What has to be as it was for a study to go on."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote

import optuna

from dbf_ray.build import resolved
from dbf_ray.config import Config, differences, identity, make_config
from dbf_ray.errors import ConfigError
from dbf_ray.search.draws import Draws
from dbf_ray.search.spaces import SearchSpace
from dbf_ray.tracking.urls import sqlite_url


def check_same(study: optuna.Study, config: Config, space: SearchSpace) -> None:
    """Refuse to go on with another base configuration, whose trials could not be compared, or with other
    baselines.

    Raises:
        ConfigError: with what differs.
    """
    stored = study.user_attrs.get("config")
    if stored is None or not study.get_trials(deepcopy=False):
        return
    name = study.study_name
    begun = make_config(stored, f"study {name!r}")
    changed = differences(identity(resolved(begun)), identity(resolved(config)))
    if changed:
        raise ConfigError(
            f"the study {name!r} was begun with other settings, it differs in {', '.join(changed[:5])}; "
            "give the same ones to continue it, or another --study"
        )
    before, now = study.user_attrs["baselines"], space.baselines
    differing = [f"{one} is new" for one in now if one not in before]
    differing += [f"{one} is gone" for one in before if one not in now]
    if differing:
        raise ConfigError(
            f"{space.file}: the study {name!r} was begun with other BASELINES, "
            f"{', '.join(differing[:5])}; give the same ones to continue it, or another --study"
        )


def draws_to_come(folder: Path, config: Config, space: SearchSpace) -> Draws:
    """What ``space`` may draw in the study in ``folder``, new or going on; nothing is written there.

    Raises:
        ConfigError: as :func:`check_same`, or its file cannot be read.
    """
    file = folder / "study.db"
    if not file.exists():
        return Draws(space, folder.name, [])
    try:
        with tempfile.TemporaryDirectory() as place:  # Optuna would write to the file itself
            copy = Path(place) / file.name
            with (
                contextlib.closing(sqlite3.connect(f"file:{quote(bytes(file))}?mode=ro", uri=True)) as there,
                contextlib.closing(sqlite3.connect(copy)) as here,
            ):
                there.backup(here)
            study = optuna.load_study(study_name=folder.name, storage=sqlite_url(copy))
            check_same(study, config, space)
            return Draws(space, folder.name, study.get_trials(), study.user_attrs.get("draws"))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"cannot open the study {folder.name!r} in {file}: {' '.join(str(error).split())[:300]}; give "
            "another --study"
        ) from error
