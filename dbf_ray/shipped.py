"""Configurations and search spaces that come with the package, found by name.

In a checkout they are the repository's ``jobs/configs`` and ``search_spaces``; a wheel has copies beside this
file, which setup.py puts there.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from dbf_ray.errors import ConfigError

HERE = Path(__file__).resolve().parent
# kind -> (folder in the repository, folder in a wheel, suffix)
PLACES = {
    "configuration": ("jobs/configs", "shipped_files/configs", ".yaml"),
    "search space": ("search_spaces", "shipped_files/search_spaces", ".py"),
}


def shipped_files(kind: str) -> dict[str, Path]:
    """Files of a kind (a key of ``PLACES``) by name, sorted."""
    in_repository, in_wheel, suffix = PLACES[kind]
    packaged = HERE / in_wheel
    folder = packaged if packaged.is_dir() else HERE.parent / in_repository
    return {file.stem: file for file in sorted(folder.glob(f"*{suffix}")) if file.stem != "__init__"}


def find_shipped(kind: str, given: str | Path) -> Path:
    """The file that is meant: a path as it stands, or the shipped one of that name.

    A file that is there goes before a shipped one of the same name.

    Raises:
        ConfigError: it is neither.
    """
    file, shipped = Path(given), shipped_files(kind)
    if not file.is_file() and str(given) in shipped:
        return shipped[str(given)]
    if not file.exists():
        close = difflib.get_close_matches(str(given), shipped, 1)
        raise ConfigError(
            f"the {kind} {given} does not exist; give an existing {PLACES[kind][2]} file, or the name of one "
            f"that is shipped ({', '.join(shipped)}){f'; did you mean {close[0]}?' if close else ''}"
        )
    return file
