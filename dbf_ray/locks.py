"""A folder that only one process at a time may write; the system frees the lock when that process ends,
however it ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from dbf_ray.errors import DbfRayError, ResourceError


@contextlib.contextmanager
def only_writer(folder: Path, what: str, otherwise: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of ``folder``, which is made if missing.

    Args:
        folder: the folder to be written.
        what: what another process would be doing there, for the message.
        otherwise: what a person can do instead of waiting, for the message.
        patience: seconds to wait for a process that is about to end.

    Raises:
        ResourceError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(folder / ".lock", timeout=patience))
        except Timeout as error:
            raise ResourceError(
                f"another process is {what} in {folder}; wait for it, or {otherwise}"
            ) from error
        yield


@contextlib.contextmanager
def reading(folder: Path, what: str, otherwise: str) -> Iterator[None]:
    """Read files of ``folder`` that its writer may remove: a failure is then told as what it is.

    Raises:
        ResourceError: in place of any error of this project, if another process holds the lock; the arguments
            are those of :func:`only_writer`.
    """
    try:
        yield
    except DbfRayError:
        if (folder / ".lock").exists():
            with only_writer(folder, what, otherwise):
                pass
        raise
