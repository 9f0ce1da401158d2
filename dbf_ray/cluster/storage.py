"""Whether the place that all nodes share can be written, found out before anything trains."""

from __future__ import annotations

import posixpath
import uuid

from pyarrow.fs import FileSystem

from dbf_ray.cluster.reach import in_short
from dbf_ray.errors import ConfigError, ResourceError
from dbf_ray.uris import public


def require_storage(storage: str | None) -> None:
    """Refuse a storage that cannot be written: a folder that cannot be made, a URI of no file system that is
    known, or one that holds keys, which every record would show.

    Args:
        storage: an absolute path or a URI; None: there is none.

    Raises:
        ConfigError, ResourceError: with the reason, in one line.
    """
    if storage is None:
        return
    if public(storage) != storage:
        raise ConfigError(
            f"cluster.storage must be without keys, got {public(storage)} with some; give them by "
            "environment variables, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    probe = f".probe-{uuid.uuid4().hex}"
    try:
        system, path = FileSystem.from_uri(storage)
        system.create_dir(path, recursive=True)
        with system.open_output_stream(posixpath.join(path, probe)) as stream:
            stream.write(b"x")
        system.delete_file(posixpath.join(path, probe))
    except Exception as error:  # pyarrow raises what comes to hand
        raise ResourceError(
            f"cluster.storage must be a folder or URI that can be written, {storage} is not: "
            f"{in_short(error)}; give another, that all nodes see"
        ) from error
