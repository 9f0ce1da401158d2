"""Checkpoints: a folder per epoch that alone restores a run, written so that a crash leaves either the whole
folder or nothing.

``checkpoint.pt`` holds tensors and states (read with ``weights_only=True``), ``record.json`` the
configuration and every epoch's record so far.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dbf_ray.errors import WeightsError
from dbf_ray.files import flush

_NAME = re.compile(r"epoch-(\d{5})")


def save_checkpoint(
    folder: Path, epoch: int, state: dict[str, Any], record: dict[str, Any], keep: int = 2
) -> Path:
    """Write ``folder/epoch-NNNNN`` whole or not at all, then remove all but the ``keep`` newest checkpoints.

    Args:
        folder: the run's checkpoint folder; made if missing.
        epoch: epochs finished so far.
        state: for ``checkpoint.pt``; tensors, numbers, strings, lists and dicts only.
        record: for ``record.json``.
        keep: how many checkpoints stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final, partial = folder / f"epoch-{epoch:05d}", folder / f".partial-{epoch:05d}-{os.getpid()}"
    for abandoned in folder.glob(".partial-*"):  # of a process that was killed while it wrote
        shutil.rmtree(abandoned, ignore_errors=True)
    partial.mkdir()
    torch.save(state, partial / "checkpoint.pt")
    (partial / "record.json").write_text(json.dumps(record), encoding="utf-8")
    for file in partial.iterdir():
        flush(file)
    if final.exists():
        # removed by the next save; a crash here leaves it or the new one whole
        final.rename(folder / f".partial-old-{epoch:05d}")
    partial.rename(final)
    flush(folder)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    found = [
        path for path in folder.iterdir() if _NAME.fullmatch(path.name) and (path / "checkpoint.pt").is_file()
    ]
    return sorted(found, key=lambda path: path.name)


def load_checkpoint(
    folder: Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read (state, record) of a checkpoint folder.

    Raises:
        WeightsError: the folder is no checkpoint, or one of its files cannot be read.
    """
    record = read_record(folder)
    with _readable(folder):
        state = torch.load(folder / "checkpoint.pt", map_location=device, weights_only=True)
    return state, record


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a checkpoint folder, without its tensors.

    Raises:
        WeightsError: the folder is no checkpoint, or its record cannot be read.
    """
    with _readable(folder):
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"record.json must hold a record, got {record!r:.40}")
    return record


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Names the checkpoint whose file cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise WeightsError(
            f"{folder} is not a checkpoint: {Path(str(error.filename)).name} is missing; give a folder like "
            "runs/NAME/checkpoints/epoch-00012"
        ) from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"cannot read checkpoint {folder}: {reason}; choose an older one beside it"
        ) from error


def random_state() -> dict[str, Any]:
    """States of torch's and Python's generators, in types that ``weights_only=True`` reads."""
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": [version, list(internal), gauss]}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo of :func:`random_state`."""
    torch.set_rng_state(state["torch"].cpu())
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
