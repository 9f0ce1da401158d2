"""Files that are there whole or not at all, whenever a process is killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A path to write to; what is there takes the name of ``file`` once the block ends without an error, and
    vanishes otherwise.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write a text file in UTF-8, in one step."""
    with whole_file(file) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
