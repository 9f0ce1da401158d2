"""Whether a run or a study goes on with the data that it began with.

The digest of the data is in every record; ``data.json`` beside it has what it is made of, by which it can be
said what has changed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbf_ray.build import RunSpec
from dbf_ray.data.digest import Facts, changes, data_facts, digest_of, text_facts
from dbf_ray.data.patches.originals import original_files
from dbf_ray.errors import DataError
from dbf_ray.files import write_text
from dbf_ray.locks import reading
from dbf_ray.training.checkpoint import read_record
from dbf_ray.training.ddp import decided, gather_objects

FILE = "data.json"


@dataclass(frozen=True)
class DataRecord:
    """The data of a run: the facts of what it trains on and is evaluated on, by the name of the split, and
    every change so far, each ``{"after", "digest", "changed"}``: what was done on the data of this digest,
    and phrases that say what became of them.
    """

    splits: Mapping[str, Facts]
    changes: tuple[Mapping[str, Any], ...] = ()

    @property
    def digest(self) -> str:
        """Of all of it."""
        return digest_of(self.splits)

    def as_facts(self) -> dict[str, Any]:
        """What a run's record holds of it."""
        return {"data_digest": self.digest, "data_changes": [dict(change) for change in self.changes]}

    @property
    def notes(self) -> list[str]:
        """What a person should know of the changes, a line for each."""
        return [
            f"note: the data have changed after {change['after']}: {'; '.join(change['changed'])}"
            for change in self.changes
        ]

    def write(self, folder: Path) -> None:
        """Write ``data.json``; not indented, since it has a line's worth for every image."""
        write_text(folder / FILE, json.dumps({**self.as_facts(), "splits": self.splits}) + "\n")


def data_of(spec: RunSpec) -> DataRecord:
    """The data of a run that begins."""
    splits = {"train": data_facts(spec.train_set)}
    if spec.eval_split != "train":
        splits[spec.eval_split] = data_facts(spec.eval_set)
    if originals := original_files(spec.eval_set):
        splits["originals"] = text_facts(originals)
    return DataRecord(splits)


def continued(
    now: DataRecord,
    before: Mapping[str, Any],
    folder: Path,
    *,
    whose: str,
    another: str,
    after: str,
    accept: bool,
    classes: Sequence[str] | None = None,
) -> DataRecord:
    """The data of what goes on: as they are ``now``, with the changes so far.

    Args:
        now: the data there are.
        before: ``data_digest`` and ``data_changes`` of when it stopped; without them nothing is compared.
        folder: where ``data.json`` of then is.
        whose: "run 'a' in runs".
        another: "give another --name".
        after: what was done with the data of then: "epoch 3".
        accept: take changed data.
        classes: of then, if they are known.

    Raises:
        DataError: they have changed, and ``accept`` is false or the classes are others.
    """
    digest, known = before.get("data_digest"), tuple(before.get("data_changes") or ())
    if digest in (None, now.digest):
        return DataRecord(now.splits, known)
    phrases = _what_changed(folder, str(digest), now)
    if classes is not None and list(classes) != now.splits["train"]["classes"]:
        raise DataError(
            f"the data of {whose} have changed since it began: {'; '.join(phrases)}; other classes are "
            f"another detector's, so give it the data as they were, or {another}"
        )
    if not accept:
        raise DataError(
            f"the data of {whose} have changed since it began: {'; '.join(phrases)}; give it the data as "
            f"they were, {another}, or go on with them as they are by --data.changed accept"
        )
    return DataRecord(now.splits, (*known, {"after": after, "digest": digest, "changed": phrases}))


def resumed_data(spec: RunSpec, directory: Path, checkpoint: Path | None, accept: bool) -> DataRecord:
    """The data of a run in ``directory`` that begins, or goes on from ``checkpoint``. Inside a process group
    every rank must call it; that of rank 0 counts, and whatever is wrong is raised on all.

    Raises:
        DataError: the data have changed since, or ranks see different data.
    """
    now = data_of(spec)
    if len(set(gather_objects(now.digest))) > 1:
        raise DataError(
            "all workers must see the same data, but images or labels differ between them; give all of "
            "them the same data.root"
        )
    if checkpoint is None:
        return now

    def compared() -> DataRecord:
        with reading(directory, "training", "give another --name"):
            record = read_record(checkpoint)
        # of the run that wrote it, which a retry continues in a folder of its own
        origin = checkpoint.parent.parent
        return continued(
            now,
            record.get("facts") or {},
            origin if (origin / FILE).exists() else directory,
            whose=f"run {directory.name!r} in {directory.parent}",
            another="give another --name",
            after=f"epoch {len(record.get('epochs', ()))}",
            accept=accept,
            classes=record.get("classes"),
        )

    return decided(compared)


def stored(folder: Path) -> dict[str, Any]:
    """What ``data.json`` of a folder holds, empty where it is not there or cannot be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _what_changed(folder: Path, digest: str, now: DataRecord) -> list[str]:
    """Phrases; one that says that it cannot be said, where ``data.json`` is gone or of other data."""
    before = stored(folder)
    with contextlib.suppress(AttributeError, KeyError, IndexError, TypeError):  # it holds something else
        if before.get("data_digest") == digest and (phrases := changes(before["splits"], now.splits)):
            return phrases
    return [f"{folder / FILE}, which would say in what, is not there or not of these data"]
