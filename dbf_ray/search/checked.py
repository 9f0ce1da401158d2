"""What a search knows of its trials' configurations and data before the first of them."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dbf_ray.build import RunSpec, check_scored, prepare
from dbf_ray.build.data import make_split
from dbf_ray.config import Config, paths, role_of, with_overrides
from dbf_ray.config.roles import leaves
from dbf_ray.data.contents import why_nothing_counts
from dbf_ray.data.digest import Facts, data_facts
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.files import LONGEST_NAME, sha256
from dbf_ray.plan.uncovered import uncovered_notes
from dbf_ray.run.same_data import DataRecord, continued, data_of, stored
from dbf_ray.run.summary import versions
from dbf_ray.search.compared import check_accuracy
from dbf_ray.search.controls import controls_of
from dbf_ray.search.settings import Beginning


class CheckedBegin:
    """Checks a configuration completely (data, weights, sizes, and that map50 will tell something) and says
    how its run begins; keeps the data of the first.

    Attributes:
        warnings: lines about data that are left for the end.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._data: DataRecord | None = None
        self._first: tuple[Config, RunSpec] | None = None
        self._classes: list[str] = []

    def __call__(self, config: Config) -> Beginning:
        """How a run of ``config`` begins.

        Raises:
            DbfRayError: it cannot be trained, or its map50 would tell nothing.
        """
        spec = prepare(config)
        check_scored(config, spec)
        check_accuracy(config, spec)
        data = data_of(spec)
        if self._data is None:
            self._data, self._classes, self._first = data, spec.train_set.classes, (config, spec)
        return Beginning(
            spec.horizon,
            origin_of(config, data.digest),
            checkpoint_bytes(config, spec),
            spec.hits,
        )

    def study_data(self, config: Config, folder: Path) -> DataRecord:
        """The data of the study in ``folder`` with the base ``config``, which begins or goes on: those of its
        trials, and val, where that is left for the end and could be read when the study began.

        Raises:
            DataError: they have changed since it began.
        """
        if self._data is None:  # no baseline was looked at
            self(with_overrides(config, {"freezing.policy": "full"}))
        assert self._data is not None
        trials = sorted(
            (entry for entry in (folder / "trials").glob("*") if entry.name.isdecimal()),
            key=lambda entry: int(entry.name),
        )
        # where the study's own file is lost, its newest trial knows
        origin = next((place for place in (folder, *reversed(trials)) if stored(place)), folder)
        now, before = self._data, stored(origin)
        if config.data.selection_fraction > 0:
            left = self._left_for_the_end(config)
            if not before or "val" in _splits_of(before):
                now = DataRecord({**now.splits, **left})
        return continued(
            now,
            before,
            origin,
            whose=f"study {folder.name!r} in {folder.parent}",
            another="give another --study",
            after=f"trial {trials[-1].name}" if trials else "the beginning",
            accept=config.data.changed == "accept",
            classes=_classes_of(before),
        )

    def uncovered(self) -> list[str]:
        """A warning, where the detector of the first configuration, a baseline, can't match its objects; to
        be asked once.
        """
        first, self._first = self._first, None
        return [] if first is None else uncovered_notes(*first)

    def _left_for_the_end(self, config: Config) -> dict[str, Facts]:
        """What val is, on which the front will be evaluated; a warning where that will not work."""
        split = config.data.val_split
        try:
            dataset = make_split(config.data, split, self._classes)
        except DataError as error:
            self.warnings.append(f"warning: the front will not be evaluated on {split}: {error}")
            return {}
        if reason := why_nothing_counts(dataset):
            self.warnings.append(f"warning: the front's map50 on {split} will be none, since there {reason}")
        return {"val": data_facts(dataset)}


def checkpoint_bytes(config: Config, spec: RunSpec) -> int:
    """About how large a checkpoint is: weights, their average, and what the optimizer keeps of each."""
    train = config.training
    copies = 1 + {"sgd": 1, "adamw": 2}[train.optimizer] + (train.ema is not None)
    return copies * sum(tensor.nbytes for tensor in spec.detector.state_dict().values())


def origin_of(config: Config, data_digest: str) -> dict[str, Any]:
    """What a training begins with beside its configuration: the data's digest, those of files of weights, and
    the versions of the code that trains.
    """
    files = paths(config)
    weights = {
        key: sha256(files[key].expanduser())
        for key, field, _ in leaves(config)
        if role_of(field).weights and key in files
    }
    return {"data": data_digest, "weights": weights, "versions": code_versions(versions())}


def code_versions(found: Mapping[str, str]) -> dict[str, str]:
    """Of all versions in a record those of the code that trains."""
    return {name: found[name] for name in ("dbf-ray", "torch", "torchvision") if name in found}


def check_name(name: str) -> None:
    """Refuse a study's name that no folder can have.

    Raises:
        ConfigError: with the rule.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(
            "a study's name may hold letters, digits, '.', '_' and '-', and begins with a letter or digit, "
            f"got {name!r}"
        )
    if len(name) > LONGEST_NAME:
        raise ConfigError(
            f"a study's name must be within {LONGEST_NAME} signs, as those of folders, got {len(name)}; give "
            "a shorter one"
        )


def check_trials_known(folder: Path) -> None:
    """Refuse a study's folder whose trials its ``study.db`` does not know: a study that began anew there
    would take their checkpoints for its own.

    Raises:
        ConfigError: the file is gone, is empty, holds a study of another name, as in a folder renamed, or is
            older than the trials are, as a copy put back.
    """
    file = folder / "study.db"
    there = {int(entry.name) for entry in (folder / "trials").glob("*") if entry.name.isdecimal()}
    if not there:
        return
    why = "is not there" if not file.exists() else "is empty"
    if file.exists() and file.stat().st_size:
        try:
            read_only = f"file:{quote(bytes(file))}?mode=ro"
            with contextlib.closing(sqlite3.connect(read_only, uri=True)) as opened:
                names = [str(name) for (name,) in opened.execute("SELECT study_name FROM studies")]
                numbers = "SELECT value_json FROM trial_user_attributes WHERE key = 'number'"
                there -= {int(number) for (number,) in opened.execute(numbers)}
        except sqlite3.Error:  # whoever opens it says so
            return
        if folder.name in names and not there:
            return
        why = f"is of the study {names[0]!r}" if names else "holds no study"
        if folder.name in names:
            why = f"knows no trial {min(there)}"
    raise ConfigError(
        f"the study {folder.name!r} has trials in {folder / 'trials'}, but {file} {why}; put the one that it "
        "had back there, or give another --study"
    )


def is_done(folder: Path, wanted: int, config: Config) -> bool:
    """Whether the study has all that is wanted, as far as its files say: it is then only shown."""
    try:
        result = json.loads((folder / "pareto.json").read_text(encoding="utf-8"))
        trials = [trial for trial in result["trials"] if trial["state"] == "COMPLETE"]
        controls = sum(trial["role"] == "control" for trial in trials)
        front = [trial for trial in trials if trial["number"] in result["front"]]
        return (
            len(trials) - controls >= wanted
            and controls >= len(controls_of(config))
            and all(len(trial["seeds"]) >= config.search.seeds_on_front - 1 for trial in front)
            and (config.data.selection_fraction == 0 or all("val_map50" in trial for trial in front))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _splits_of(stored_data: Mapping[str, Any]) -> Mapping[str, Any]:
    splits = stored_data.get("splits")
    return splits if isinstance(splits, dict) else {}


def _classes_of(stored_data: Mapping[str, Any]) -> list[str] | None:
    train = _splits_of(stored_data).get("train")
    return train.get("classes") if isinstance(train, dict) else None
