"""Files that are there whole or not at all, whenever a process is killed."""

from __future__ import annotations

import contextlib
import os
import re
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


_WEIGHTS_NAME = re.compile(r"(\w+_Weights\.)?[A-Z][A-Z0-9_]*")


def is_weights_name(weights: str | Path) -> bool:
    """Whether this is a name of torchvision's weights (``"DEFAULT"``, ``"IMAGENET1K_V1"``,
    ``"ResNet50_Weights.IMAGENET1K_V1"``), not a file.

    A name is capitals, digits and underscores alone, ``..._Weights.`` in front or not; a file that is called
    so needs its folder.
    """
    return _WEIGHTS_NAME.fullmatch(str(weights)) is not None
