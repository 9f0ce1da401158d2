"""Readers of labelling formats. A new format is one file and one line in ``READERS``."""

from __future__ import annotations

from pathlib import Path

from dbf_ray.data.readers.base import Item, LabelledObject, Labels, Listing, Problem, Reader
from dbf_ray.data.readers.coco import CocoReader
from dbf_ray.data.readers.dior import DiorReader
from dbf_ray.data.readers.dota import DotaReader
from dbf_ray.data.readers.hrsc import HrscReader
from dbf_ray.data.readers.yolo_obb import YoloObbReader
from dbf_ray.errors import DataError
from dbf_ray.members import find_member, from_outside

READERS: dict[str, Reader] = {
    "dior": DiorReader(),
    "hrsc": HrscReader(),
    "hrsc_types": HrscReader(types=True),
    "yolo_obb": YoloObbReader(),
    "coco": CocoReader(),
    "dota": DotaReader(),
}
"""Order matters to :func:`recognise` alone: dota is last, since images/ without any labels are a test set of
its layout.
"""

NEEDED = ("layout", "classes", "recognises", "splits", "class_names", "listing", "read")
READER_RULE = f"a class with what dbf_ray.data.readers.Reader names: {', '.join(NEEDED)}"


def is_reader(member: object) -> bool:
    """Whether something is a class of readers."""
    return isinstance(member, type) and all(hasattr(member, attribute) for attribute in NEEDED)


def find_reader(name: str) -> Reader:
    """The reader of a format: a row of :data:`READERS`, or one of a class that a dotted path
    ``package.module:MyReader`` leads to, made without arguments.

    Raises:
        ConfigError: there is no such reader.
    """
    found = find_member("data format", name, READERS, READER_RULE, is_reader)
    return found() if from_outside(name) else found


def recognise(root: Path) -> str:
    """Name of the format that a data folder is in.

    Raises:
        DataError: there is no such folder, or it is in none of the formats.
    """
    if not root.is_dir():
        raise DataError(f"the data folder must exist, {root} is not there; give an existing folder")
    for name, reader in READERS.items():
        if reader.recognises(root):
            return name
    layouts = "; ".join(f"{name}: {reader.layout}" for name, reader in READERS.items())
    raise DataError(
        f"{root} must be in one of the known formats ({layouts}), it is in none; name the one that is meant, "
        "or mend the folder"
    )


__all__ = [
    "READERS",
    "READER_RULE",
    "Item",
    "LabelledObject",
    "Labels",
    "Listing",
    "Problem",
    "Reader",
    "find_reader",
    "is_reader",
    "recognise",
]
