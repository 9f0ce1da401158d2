"""Checkpoints: a folder per epoch that alone restores a run, written so that a crash at any moment leaves a
whole one.

``checkpoint.pt`` holds tensors and states (read with ``weights_only=True``), ``record.json`` the
configuration and every epoch's record so far, ``manifest.json`` says what both must be (:mod:`.manifest`).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dbf_ray.errors import WeightsError
from dbf_ray.files import flush
from dbf_ray.room import enough_room
from dbf_ray.tensors import load_tensors
from dbf_ray.training.manifest import FILES, MANIFEST, fault_of, seal

_REPLACED = ".replaced"  # an earlier attempt's checkpoint of an epoch, until the new one is in its place
_NAME = re.compile(rf"epoch-\d{{5}}({re.escape(_REPLACED)})?")
_RAYS = re.compile(r"checkpoint_.+")  # of the copies that Ray Train keeps, by time
_LIKE = "give a folder like runs/NAME/checkpoints/epoch-00012"


def save_checkpoint(
    folder: Path,
    epoch: int,
    state: dict[str, Any],
    record: dict[str, Any],
    keep: int = 2,
    best: int | None = None,
) -> Path:
    """Write ``folder/epoch-NNNNN`` whole or not at all, then remove all but ``keep`` whole checkpoints: this
    one, those before it from the newest on, then those of later epochs, which will be trained again.

    Args:
        folder: the run's checkpoint folder; made if missing.
        epoch: epochs finished so far.
        state: for ``checkpoint.pt``; tensors, numbers, strings, lists and dicts only.
        record: for ``record.json``.
        keep: how many checkpoints stay.
        best: epochs finished of one that stays beside them.

    Raises:
        ResourceError: there is no room for it; nothing of it stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final, partial = folder / name_of(epoch), folder / f".partial-{epoch:05d}-{os.getpid()}"
    for abandoned in folder.glob(".partial-*"):  # of a process that was killed while it wrote or removed
        shutil.rmtree(abandoned, ignore_errors=True)
    written = json.dumps(record)
    try:
        with enough_room(folder, f"the checkpoint of epoch {epoch}", bytes_of(state) + len(written)):
            partial.mkdir()
            torch.save(state, partial / "checkpoint.pt")
            (partial / "record.json").write_text(written, encoding="utf-8")
            seal(partial)
    except BaseException:
        # it would keep a full disk full; torch holds the file open as long as its error lives
        with contextlib.suppress(OSError):
            os.truncate(partial / "checkpoint.pt", 0)
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if fault_of(final, contents=False) is None:
        _remove(_replaced(final))
        final.rename(_replaced(final))
    else:
        _remove(final)
    partial.rename(final)
    flush(folder)
    others = [
        path for path in list_checkpoints(folder) if path != final and not path.name.endswith(_REPLACED)
    ]
    others.sort(key=lambda path: (path.name < final.name, path.name), reverse=True)
    stay = {final, *others[: keep - 1], *([] if best is None else [folder / name_of(best)])}
    for other in _candidates(folder):
        if other not in stay:
            _remove(other)
    return final


def name_of(epoch: int) -> str:
    """Of the checkpoint after so many epochs."""
    return f"epoch-{epoch:05d}"


def bytes_of(state: Any) -> int:
    """Bytes of the tensors in a state; each of its other values counts for some."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict | list | tuple):
        return sum(map(bytes_of, state.values() if isinstance(state, dict) else state))
    return 8


def _replaced(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + _REPLACED)


def _remove(checkpoint: Path) -> None:
    """Under another name first, so that half of a checkpoint never has a checkpoint's."""
    gone = checkpoint.with_name(f".partial-{checkpoint.name}-gone")
    with contextlib.suppress(OSError):
        checkpoint.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first, by the sizes of their files; what is in these
    :func:`newest_whole` compares.
    """
    return [path for path in _candidates(folder) if fault_of(path, contents=False) is None]


def newest_epoch(folder: Path) -> int:
    """Epochs done in a run's newest whole checkpoint, by the sizes of its files; 0 without one."""
    newest = list_checkpoints(folder)[-1:]
    return max((int(path.name.removesuffix(_REPLACED).removeprefix("epoch-")) for path in newest), default=0)


def _candidates(folder: Path, named: re.Pattern[str] = _NAME) -> list[Path]:
    """Checkpoints of a run, whole or torn, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        (path for path in folder.iterdir() if path.is_dir() and named.fullmatch(path.name)),
        key=lambda path: (path.name.removesuffix(_REPLACED), not path.name.endswith(_REPLACED)),
    )


def newest_whole(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, with a warning if newer ones are torn; None where there are no
    checkpoints.

    Raises:
        WeightsError: not one of them is whole.
    """
    torn: list[str] = []
    for path in reversed(_candidates(folder)):
        if (fault := fault_of(path)) is None:
            if torn:
                _warn(f"torn in {folder}: {'; '.join(torn)}; going on from {path.name}, the newest whole one")
            return path
        torn.append(f"{path.name} ({fault})")
    if torn:
        raise WeightsError(f"one checkpoint in {folder} must be whole, not one is: {'; '.join(torn)}")
    return None


def whole_checkpoint(checkpoint: Path) -> Path:
    """``checkpoint`` if it is whole, else the newest whole one of an earlier epoch beside it, with a warning
    that names both.

    Raises:
        WeightsError: it is no checkpoint, or it is torn and there is no whole one of an earlier epoch.
    """
    if (fault := fault_of(checkpoint)) is None:
        return checkpoint
    place = checkpoint.resolve()
    named = _RAYS if _RAYS.fullmatch(place.name) else _NAME
    has_name = named.fullmatch(place.name) is not None
    kin = [path for path in _candidates(place.parent, named) if path != place]
    older = [path for path in kin if has_name and path.name.removesuffix(_REPLACED) <= place.name]
    is_one = place.is_dir() and (has_name or any((place / name).exists() for name in (*FILES, MANIFEST)))
    used = _newest_of(older)
    if is_one and used is not None:
        _warn(f"checkpoint {checkpoint} is torn ({fault}); {used} is used instead")
        return used
    other = used or _newest_of([path for path in kin if path not in older])
    step = f"give {other}, which is whole" if other else None
    if is_one:
        raise WeightsError(
            f"checkpoint {checkpoint} must be whole, {fault}, and none before it is; "
            f"{step or 'give one of another run'}"
        )
    kind = "record.json is missing"
    if not place.is_dir():
        kind = "it is a file" if place.exists() else "it is not there"
    raise WeightsError(f"{checkpoint} is not a checkpoint: {kind}; {step or _LIKE}")


def _newest_of(checkpoints: list[Path]) -> Path | None:
    """The last whole one of several, oldest first."""
    return next((path for path in reversed(checkpoints) if fault_of(path) is None), None)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)


def load_checkpoint(
    folder: Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read (state, record) of a checkpoint folder that is known to be whole.

    Raises:
        WeightsError: the folder is no checkpoint, or one of its files cannot be read.
    """
    record = read_record(folder)
    with _readable(folder):
        state = load_tensors(folder / "checkpoint.pt", device)
        if not isinstance(state, dict):
            raise ValueError(f"checkpoint.pt must hold a state, got {type(state).__name__}")
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
            f"{folder} is not a checkpoint: {Path(str(error.filename)).name} is missing; {_LIKE}"
        ) from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"cannot read checkpoint {folder}: {reason}; give one that a run of this project wrote"
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
