"""A run in the storage that all nodes share: what is there when its machines are lost.

Ray Train keeps the last checkpoints of a run there, each with the record so far; at the end the run's record
is put beside them. A new machine begins with what is there.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from dbf_ray.errors import ResourceError, WeightsError
from dbf_ray.remote import fetch, folders_in, joined, put
from dbf_ray.tracking import read_summary
from dbf_ray.tracking.jsonl import CONFIG, EPOCHS, SUMMARY
from dbf_ray.training.checkpoint import list_checkpoints, name_of, read_record
from dbf_ray.training.manifest import MANIFEST, fault_of

PARTIAL, RECORD, BEST = ".fetched.partial", "record", "best"


def fetch_run(place: str, directory: Path) -> Path | None:
    """Where a run's folder has no checkpoint of its own, take the newest whole one that the storage has, and
    the record of a run that is finished.

    Args:
        place: of the run in the storage.
        directory: the run's folder on this machine.

    Returns:
        The checkpoint, in the run's folder; None: nothing was fetched.

    Raises:
        ResourceError: the storage cannot be read.
    """
    folder = directory / "checkpoints"
    if (directory / SUMMARY).exists() or list_checkpoints(folder):
        return None
    names = [name for name in folders_in(place) if name.startswith("checkpoint_")]
    for name in reversed(names):
        partial = directory / PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        fetch(joined(place, name), partial)
        try:
            if fault_of(partial) is None:
                target = folder / name_of(len(read_record(partial)["epochs"]))
                folder.mkdir(parents=True, exist_ok=True)
                partial.rename(target)
                _fetch_summary(place, directory)
                return target
        except (WeightsError, KeyError):
            pass
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return None


def _fetch_summary(place: str, directory: Path) -> None:
    if RECORD in folders_in(place):
        fetch(joined(place, RECORD), directory)


def put_record(place: str, directory: Path) -> None:
    """Put the record of a run that is finished, and its best checkpoint if it was kept, beside its last ones.
    A storage that is away now does not make a finished run a failed one: a warning says so.
    """
    files = [directory / name for name in (CONFIG, EPOCHS, SUMMARY)]
    best = (read_summary(directory) or {}).get("checkpoint_best")
    try:
        if best is not None and Path(best).is_dir():
            put(sorted(Path(best).iterdir(), key=lambda file: file.name == MANIFEST), joined(place, BEST))
        put([file for file in files if file.exists()], joined(place, RECORD))
    except ResourceError as error:
        warnings.warn(f"the run's record is in {directory} alone: {error}", stacklevel=2)
