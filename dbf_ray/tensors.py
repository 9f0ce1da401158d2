"""Files of tensors from anywhere: nothing in them is run, and they fill no memory that they do not show."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

MOST_TIMES = 4  # its own size that a file may unpack to: torch.save does not compress


def load_tensors(file: Path, device: torch.device | str = "cpu") -> Any:
    """What ``torch.save`` wrote to ``file``: tensors and plain values. A pickle can name any function to be
    called; here nothing is but what torch itself knows to be safe (``weights_only=True``), and what
    ``torch.serialization.safe_globals`` adds.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds other objects, unpacks to many times its size, or is damaged; in one line.
    """
    try:
        _refuse_packed(file)
        return torch.load(file, map_location=device, weights_only=True)
    except (OSError, RuntimeError):  # RuntimeError: of the device, or of torch's own archives, in plain words
        raise
    except Exception as error:  # torch's own text says how to run what is in the file
        if named := re.search(r"(?:GLOBAL|class|function) ([\w.]+\.\w+)", str(error)):
            raise ValueError(
                f"it must hold tensors and plain values only, found {named[1]}, which could run code"
            ) from error
        if isinstance(error, _PackedError):
            raise
        raise ValueError("it is damaged, or not a file that torch.save wrote") from error


class _PackedError(ValueError):
    """A file unpacks to many times its size."""


def _refuse_packed(file: Path) -> None:
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > MOST_TIMES * (size := file.stat().st_size):
        raise _PackedError(f"{size} bytes must unpack to at most {MOST_TIMES} times as many, got {unpacked}")
