"""The states that a study's trials begin at: checkpoints, by the names of :mod:`.states`.

A state is a folder ``states/NAME`` with the files of a checkpoint: hard links to them, copies where links
cannot be. It is there whole or not at all: made under another name and renamed, renamed before it is removed.
Trials publish; only the search itself removes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dbf_ray.files import flush
from dbf_ray.training.checkpoint import read_record
from dbf_ray.training.manifest import FILES, MANIFEST, fault_of

PARTIAL, TRASH = ".partial-", ".trash-"


class Store:
    """The states of one study.

    Args:
        folder: where they are; made when the first is published.
        versions: of the code that trains; a checkpoint that others have had a part in is no state.
    """

    def __init__(self, folder: Path, versions: Mapping[str, str]) -> None:
        self.folder, self.versions = folder, dict(versions)

    def __getitem__(self, name: str) -> Path:
        """The folder of a state, whether or not it is there."""
        return self.folder / name

    def names(self) -> set[str]:
        """The states that are there, whole by the sizes of their files."""
        if not self.folder.is_dir():
            return set()
        found = (entry for entry in self.folder.iterdir() if not entry.name.startswith("."))
        return {entry.name for entry in found if fault_of(entry, contents=False) is None}

    def publish(self, checkpoint: Path, name: str) -> bool:
        """Make a whole checkpoint the state ``name``; says whether it is there then."""
        if fault_of(self[name], contents=False) is None:
            return True
        if not self._alike(read_record(checkpoint).get("facts") or {}):
            return False
        partial = self.folder / f"{PARTIAL}{name}-{uuid.uuid4().hex}"
        try:
            partial.mkdir(parents=True)
            for file in (*FILES, MANIFEST):
                _link(checkpoint / file, partial / file)
            flush(partial)
            self._put(partial, name)
        finally:  # a full disk
            shutil.rmtree(partial, ignore_errors=True)
        flush(self.folder)
        return True

    def whole(self, name: str) -> bool:
        """Whether a state is there with the contents that it was published with."""
        return fault_of(self[name]) is None

    def sweep(self, needed: Collection[str], seen: Collection[str] | None = None) -> None:
        """Remove all states but those ``needed``. For the search alone: it knows who begins where.

        Args:
            needed: they stay.
            seen: those that were there when it was asked what is needed: one that a trial has published since
                stays. None: what is there now.
        """
        for name in {*(self.names() if seen is None else seen)} - {*needed}:
            self._remove(name)

    def tidy(self) -> None:
        """Remove what killed processes left half made or half removed, and what is torn.

        Nothing may be published meanwhile.
        """
        if not self.folder.is_dir():
            return
        whole = self.names()
        for entry in [*self.folder.iterdir()]:
            if entry.name.startswith((PARTIAL, TRASH)):
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name not in whole:
                self._remove(entry.name)

    def _put(self, partial: Path, name: str) -> None:
        try:
            partial.rename(self[name])
        except OSError:
            if fault_of(self[name], contents=False) is None:  # another process was quicker
                return
            self._remove(name)
            partial.rename(self[name])

    def _remove(self, name: str) -> None:
        """What cannot be removed stays: a search must not end for it."""
        trash = self.folder / f"{TRASH}{name}"
        shutil.rmtree(trash, ignore_errors=True)
        with contextlib.suppress(OSError):
            self[name].rename(trash)
            shutil.rmtree(trash, ignore_errors=True)

    def _alike(self, facts: Mapping[str, Any]) -> bool:
        """Whether a checkpoint's data never changed, and these versions of the code trained all of it."""
        pieces = facts.get("pieces") or [{"versions": {}}]
        versions = [{name: piece["versions"].get(name) for name in self.versions} for piece in pieces]
        return not facts.get("data_changes") and all(found == self.versions for found in versions)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        flush(target)
