"""Folders in a storage that all machines see: ``s3://``, ``gs://``, ``hdfs://``, or a path, by pyarrow's
file systems. Credentials come from the environment.
"""

from __future__ import annotations

import atexit
import functools
import posixpath
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dbf_ray.errors import ResourceError
from dbf_ray.uris import public

LONGEST = 200  # characters of a library's reason


def is_uri(place: str | Path) -> bool:
    """Whether a place is no path of this machine."""
    return "://" in str(place)


def fetch(place: str, folder: Path) -> None:
    """Copy the files of a storage's folder into one of this machine.

    Raises:
        ResourceError: it is not there, or cannot be read.
    """
    from pyarrow.fs import FileSelector, FileType, LocalFileSystem, copy_files

    here = LocalFileSystem()
    try:
        system, path = _opened(place)
        if system.get_file_info(path).type == FileType.NotFound:
            raise FileNotFoundError("it is not there")
        folder.mkdir(parents=True, exist_ok=True)
        for one in system.get_file_info(FileSelector(path)):
            if one.type == FileType.File:
                target = str(folder / posixpath.basename(one.path))
                copy_files(one.path, target, source_filesystem=system, destination_filesystem=here)
    except Exception as error:  # pyarrow raises what comes to hand
        raise ResourceError(
            f"{public(place)} must be a folder that can be read: {_short(error)}; credentials come from the "
            "environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error


@functools.cache
def fetched(place: str) -> Path:
    """A copy of a storage's folder, which is there until this process ends.

    Raises:
        ResourceError: it is not there, or cannot be read.
    """
    scratch = Path(tempfile.mkdtemp(prefix="dbf_ray-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    folder = scratch / posixpath.basename(place.partition("?")[0].rstrip("/"))
    fetch(place, folder)
    return folder


def at_hand(place: str | Path) -> Path:
    """A folder of this machine with what is in ``place``: a URI's is fetched.

    Raises:
        ResourceError: it is not there, or cannot be read.
    """
    return fetched(str(place)) if is_uri(place) else Path(place)


def joined(place: str, name: str) -> str:
    """The place within a place; what a URI's options are stays behind."""
    path, sign, options = place.partition("?")
    return f"{path.rstrip('/')}/{name}{sign}{options}"


def put(files: Iterable[Path], place: str) -> None:
    """Copy files into a storage's folder, the last one last.

    Raises:
        ResourceError: it cannot be written.
    """
    from pyarrow.fs import LocalFileSystem, copy_files

    try:
        system, path = _opened(place)
        system.create_dir(path, recursive=True)
        for file in files:
            target = posixpath.join(path, file.name)
            copy_files(str(file), target, source_filesystem=LocalFileSystem(), destination_filesystem=system)
    except Exception as error:
        raise ResourceError(
            f"{public(place)} must be a folder that can be written: {_short(error)}"
        ) from error


def folders_in(place: str) -> list[str]:
    """Names of the folders in a storage's folder, ascending; empty where it is not there.

    Raises:
        ResourceError: it cannot be read.
    """
    from pyarrow.fs import FileSelector, FileType

    try:
        system, path = _opened(place)
        found = system.get_file_info(FileSelector(path, allow_not_found=True))
    except Exception as error:
        raise ResourceError(f"{public(place)} must be a folder that can be read: {_short(error)}") from error
    return sorted(one.base_name for one in found if one.type == FileType.Directory)


def _opened(place: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    system, path = FileSystem.from_uri(place)
    return system, path


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:LONGEST] or type(error).__name__
