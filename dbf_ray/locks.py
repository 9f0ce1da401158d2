"""A folder that only one process at a time may write; the system frees the lock when that process ends,
however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from dbf_ray.errors import ResourceError


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
    with (folder / ".lock").open("w") as file:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= until:
                    raise ResourceError(
                        f"another process is {what} in {folder}; wait for it, or {otherwise}"
                    ) from error
                time.sleep(0.2)
        yield
