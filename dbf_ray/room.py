"""Full disks, told as what they are: which place, what was to be written, how much room it needs."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from dbf_ray.errors import ResourceError

_WORDS = ("No space left on device", "Disk quota exceeded", "database or disk is full")
_TORCHS = ("PytorchStreamWriter failed", "file write failed", "unexpected pos")  # it says no reason


@contextlib.contextmanager
def enough_room(place: Path, what: str, needed: int | None = None) -> Iterator[None]:
    """A disk without room for what is written within, below ``place``, is a ResourceError.

    Args:
        place: a folder, which need not be there yet.
        what: is written, for the message: "a checkpoint".
        needed: bytes that it takes, where they are known.

    Raises:
        ResourceError: with the place and the need; other errors pass.
    """
    free = free_bytes(place)
    try:
        yield
    except Exception as error:
        full = is_full(error) or _torch_had_no_room(error, free, needed)
        if isinstance(error, ResourceError) or not full:
            raise
        need = "more than there is" if needed is None else _megabytes(needed)
        had = f"{_megabytes(free_bytes(place))} are" if needed is None else f"{_megabytes(free)} were"
        raise ResourceError(
            f"the disk of {place} is full: {what} needs {need}, {had} free; make room there, the same "
            "command goes on with what is done"
        ) from error


def is_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that a disk or a quota is full."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, OSError) and found.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(found) for words in _WORDS):
            return True
        found = found.__cause__ or found.__context__
    return False


def free_bytes(place: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    for folder in (place, *place.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


def _torch_had_no_room(error: Exception, free: int, needed: int | None) -> bool:
    return (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in _TORCHS)
        and (needed is None or free < needed)
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
