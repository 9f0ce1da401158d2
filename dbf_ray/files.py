"""Files that are there whole or not at all, whenever a process is killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dbf_ray.values import finite, plain_text

LONGEST_NAME = 255  # bytes, in every file system that is in use
MOST_SIGNS = 50  # of a name in that of its half-written file; in UTF-8 up to four bytes each


@contextlib.contextmanager
def whole_file(file: Path, durable: bool = True) -> Iterator[Path]:
    """A path to write to, in the same folder, which is made if missing. Once the block ends without an error,
    what is there takes the name of ``file``, and vanishes otherwise.

    Args:
        file: the file to make or replace. Everybody may read it.
        durable: wait until it is on the disk, so that also a machine that stops leaves the old or the new.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # of a long name a part: with what is added it would be longer than file systems take
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:MOST_SIGNS]}.", suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        if durable:
            flush(partial)
        os.replace(partial, file)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, name):
            error.filename = str(file)  # a full disk says no name, or that of the half-written file
        raise


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file in one step."""
    with whole_file(file) as partial:
        partial.write_bytes(content)


def write_text(file: Path, text: str) -> None:
    """Write a text file in UTF-8, in one step; see :func:`.values.plain_text`."""
    write_bytes(file, plain_text(text).encode())


def write_json(file: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, in one step; NaN becomes null."""
    write_text(file, json.dumps(finite(value), indent=2) + "\n")


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(file: Path) -> str:
    """The digest of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_WEIGHTS_NAME = re.compile(r"(\w+_Weights\.)?[A-Z][A-Z0-9_]*")


def is_weights_name(weights: str | Path) -> bool:
    """Whether this is a name of torchvision's weights (``"DEFAULT"``, ``"IMAGENET1K_V1"``,
    ``"ResNet50_Weights.IMAGENET1K_V1"``), not a file.

    A name is capitals, digits and underscores alone, ``..._Weights.`` in front or not; a file that is called
    so needs its folder.
    """
    return _WEIGHTS_NAME.fullmatch(str(weights)) is not None
