"""A Ray of our own on this machine, which nobody else can reach.

By default Ray's processes listen on all addresses of a machine, and whoever reaches them can run code unless
tokens are on. Ray has no option for the first; by what it does on systems without clusters
(``ENABLE_RAY_CLUSTER``) it takes 127.0.0.1 for its address, and listens there alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ray._private import ray_constants, worker
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"


@contextlib.contextmanager
def shut_in() -> Iterator[None]:
    """A Ray that is started and ended within listens on 127.0.0.1 alone, and wants a token that only its own
    processes have: whatever the shell says, which is put back in the end. No file holds the token.
    """
    before = {name: os.environ.get(name) for name in (MODE, TOKEN)}
    anywhere = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ |= {MODE: "token", TOKEN: secrets.token_hex(32)}
    _read_again()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = anywhere
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        _read_again()


def session_folder() -> Path | None:
    """Where the Ray of this process, which runs, has its sockets and logs."""
    node = worker._global_node
    return None if node is None else Path(node.get_session_dir_path())


def remove_session(folder: Path | None) -> None:
    """Remove what a Ray that has ended leaves: logs, which nobody looks for where all went well."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        latest = folder.parent / "session_latest"
        if latest.is_symlink() and not latest.exists():
            latest.unlink(missing_ok=True)


def _read_again() -> None:
    """Ray reads these variables once in a process."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
