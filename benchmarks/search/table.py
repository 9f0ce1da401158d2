"""The recorded table: a CSV file with one row for each setting, training seed and epoch."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from dbf_ray.errors import DataError
from dbf_ray.files import write_text


@dataclass(frozen=True)
class Row:
    """One epoch of one setting.

    Attributes:
        setting: its overrides, as JSON.
        seed: of the training.
        epoch: 0-based.
        map50: after it.
        state: name of what the training is after it; rows of one name are one epoch.
        flops: nominal training FLOPs of the epoch, an image's times steps.
        seconds: of the epoch, evaluation included, as it was trained.
    """

    setting: str
    seed: int
    epoch: int
    map50: float
    state: str
    flops: float
    seconds: float


COLUMNS = tuple(one.name for one in fields(Row))


def setting_text(overrides: Mapping[str, Any]) -> str:
    """A setting's name in the table."""
    return json.dumps(dict(overrides), sort_keys=True)


def read_rows(file: Path) -> list[Row]:
    """The rows of a table; none if there is no file. A last line that was cut off is left out.

    Raises:
        DataError: it is another file.
    """
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    found, kinds = [], (str, int, int, float, str, float, float)
    for number, cells in enumerate(csv.reader(lines), 1):
        if number == 1:
            if tuple(cells) != COLUMNS:
                raise DataError(f"{file} must have the columns {', '.join(COLUMNS)}, got {', '.join(cells)}")
            continue
        try:
            found.append(Row(*(kind(cell) for kind, cell in zip(kinds, cells, strict=True))))
        except ValueError as error:
            raise DataError(f"{file}, line {number}: {error}; remove it, and record it again") from error
    return found


def append_rows(file: Path, rows: Iterable[Row]) -> None:
    """Add rows, in one piece; what was cut off before is dropped."""
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    if not before.endswith("\n"):
        write_text(file, before[: before.rfind("\n") + 1] or ",".join(COLUMNS) + "\n")
    with file.open("a", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(map(astuple, rows))
        stream.flush()
        os.fsync(stream.fileno())
