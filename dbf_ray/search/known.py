"""An earlier study of the same configuration and data, whose results and states another one uses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from dbf_ray.build import resolved
from dbf_ray.config import Config, differences, identity, make_config
from dbf_ray.data.digest import changes
from dbf_ray.errors import ConfigError
from dbf_ray.run.same_data import DataRecord, stored
from dbf_ray.run.summary import versions
from dbf_ray.search.book import Book
from dbf_ray.search.checked import code_versions
from dbf_ray.search.pool import Pool
from dbf_ray.search.store import Store
from dbf_ray.tracking.urls import sqlite_url

INSTEAD = "give one with the same, or leave --known out"


class Known:
    """What a study knows of an earlier one.

    Args:
        folder: of the earlier study.
        own: folder of the new one.
        config: the base configuration of the new one.
        data: the new one's data, which the earlier one must have had; None: not compared.

    Raises:
        ConfigError: it is no study, or its trainings would not be these: with what differs.
    """

    def __init__(self, folder: Path, own: Path, config: Config, data: DataRecord | None = None) -> None:
        self.folder = folder
        if folder.absolute() == own.absolute():
            raise ConfigError(
                f"search.known must be another study's folder, got this one's, {folder}; leave it out: a "
                "study goes on with what it has"
            )
        self._study = _opened(folder)
        begun = make_config(self._study.user_attrs.get("config", {}), f"study {folder.name!r}")
        if changed := differences(identity(resolved(begun)), identity(resolved(config))):
            raise ConfigError(
                f"the study of search.known must have the same configuration, but that of {folder} differs "
                f"in {', '.join(changed[:5])}; {INSTEAD}"
            )
        before = stored(folder)
        if data is not None and before and before.get("data_digest") != data.digest:
            found = changes(before.get("splits", {}), data.splits) or ["what changed is not known"]
            raise ConfigError(
                f"the study of search.known must have the same data, but those of {folder} differ: "
                f"{'; '.join(found)}; {INSTEAD}"
            )
        self._rows = [row for row in self._study.get_trials(deepcopy=False) if _is_result(row)]
        now = code_versions(versions())
        for row in self._rows:
            result = row.user_attrs["result"]
            then = code_versions(result.get("versions", now))
            if then != now or result.get("data_changes"):
                what = f"by {then}, now {now}" if then != now else "on data that have changed since"
                raise ConfigError(
                    f"the study of search.known must be trained by the same code on the same data, but "
                    f"trial {row.user_attrs['number']} of {folder} was {what}; {INSTEAD}"
                )

    def bring(self, book: Book, pool: Pool, store: Store | None, trials: Path) -> None:
        """Enter its results, each with a number and a run folder of its own, and link its states.

        Args:
            book: of the new study; what it has already is passed over.
            pool: of the new study, whose parameters make settings that it can draw.
            store: of the new study.
            trials: where its run folders are.
        """
        drawn = {setting.key: params for params, setting in pool.drawn}
        spaces = pool.distributions
        here = {row.user_attrs["setting"]["key"] for row in book.complete()}
        for row in self._rows:
            result = row.user_attrs["result"]
            setting = book.settings.make(row.user_attrs["setting"]["overrides"])
            point = book.point(setting, result)
            if setting.key in here or point is None:
                continue
            here.add(setting.key)
            earlier = row.user_attrs["number"]
            number = book.numbers_taken()
            _link_tree(self.folder / "trials" / str(earlier), trials / str(number))
            params = drawn.get(setting.key, {})
            known = {"study": str(self.folder), "trial": earlier}
            book.optuna.add_trial(
                create_trial(
                    state=TrialState.COMPLETE,
                    values=list(point),
                    params=params,
                    distributions={name: spaces[setting.key][name] for name in params},
                    user_attrs={
                        "setting": setting.facts(),
                        "number": number,
                        "result": dict(result),
                        "known": known,
                    },
                )
            )
            book.look_again()
        if store is not None:
            states = Store(self.folder / "states", store.versions)
            for name in states.names() - store.names():
                if states.whole(name):
                    store.publish(states[name], name)


def _opened(folder: Path) -> optuna.Study:
    file = folder / "study.db"
    try:
        if not file.stat().st_size:
            raise FileNotFoundError(f"{file} is empty")
        return optuna.load_study(study_name=folder.name, storage=sqlite_url(file.absolute()))
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"search.known must be the folder of a study, with its study.db, got {folder} ({why}); give a "
            "folder like studies/NAME, or leave --known out"
        ) from error


def _is_result(row: FrozenTrial) -> bool:
    attributes: Mapping[str, Any] = row.user_attrs
    return row.state == TrialState.COMPLETE and "number" in attributes and "duplicate_of" not in attributes


def _link_tree(source: Path, target: Path) -> None:
    """Links to the files of a run folder, copies where links cannot be: whole, or not there."""
    partial = target.with_name(f".{target.name}.partial")
    for place in (partial, target):
        if place.exists():  # of a process that was killed
            shutil.rmtree(place)
    if source.is_dir():
        shutil.copytree(source, partial, copy_function=_link)
        partial.rename(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
