"""Images too large for their small objects: the command that cuts them into patches, or the cutting."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from dbf_ray.data.patches.cut_folder import cut_folder
from dbf_ray.data.patches.cutting import SplitSettings
from dbf_ray.data.patches.split import split_work
from dbf_ray.data.readers import find_reader
from dbf_ray.plan.rules.image_size import ImageSize


def cut(root: Path, name: str, out: Path, size: ImageSize, say: Callable[[str], None]) -> None:
    """Cut the images of ``root``, in format ``name``, into patches of ``size`` in folder ``out``, which is
    then in DOTA's format; what an earlier process has cut there is kept.

    Raises:
        DataError: an image could not be cut, or ``out`` lies within ``root``.
        ConfigError: ``out`` holds something else.
    """
    reader, settings = find_reader(name), SplitSettings(size.side, size.overlap)
    work = split_work(reader, root, out, settings)
    cut_folder(work, root, out, settings, say=say)


def command(root: Path, name: str, size: ImageSize, given_name: bool) -> str:
    """What a person is told to do, for people and shells."""
    folder, named = shlex.quote(str(root)), f" --format {name}" if given_name else ""
    again = f" --data.name {name}" if given_name else ""
    return (
        f"95% of the objects have a short side of a cell only at {size.needed:.0f} px, more than fits: cut "
        f"the images first, then plan on the patches{size.warning}\n"
        f"  dbf prepare-data split {folder} PATCHES --size {size.side} --overlap {size.overlap}{named}\n"
        "  dbf plan PATCHES --out FILE.yaml\n"
        f"or both at once: dbf plan {folder}{again} --patches PATCHES --out FILE.yaml"
    )
