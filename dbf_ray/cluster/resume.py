"""Where a group of Ray workers goes on: the newest whole one of the checkpoints that Ray Train keeps."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator
from pathlib import Path

import ray.train
from pyarrow.fs import FileSelector, FileType
from ray.train import Checkpoint

from dbf_ray.errors import TrainingError, WeightsError
from dbf_ray.training.checkpoint import newest_whole
from dbf_ray.training.ddp import decided
from dbf_ray.training.manifest import fault_of


@contextlib.contextmanager
def checkpoint_to_resume(begun: str | None, own: Path | None) -> Iterator[Path | None]:
    """The folder to resume from on this worker, the same on all: rank 0 looks which is whole.

    It is the run's last reported checkpoint; where that is torn, the newest whole one in ``own``, else an
    older reported one, else ``begun``. Without a reported one it is ``begun``.

    Args:
        begun: a whole checkpoint that the run was started with, if any.
        own: the run's checkpoint folder, where all workers see it.

    Raises:
        TrainingError: checkpoints were reported, and not one is whole.
    """
    latest = ray.train.get_checkpoint()
    with contextlib.ExitStack() as stack:
        chosen = decided(lambda: _newest_whole(latest, begun, own, stack))
        if isinstance(chosen, Checkpoint):
            chosen = stack.enter_context(chosen.as_directory())
        yield None if chosen is None else Path(chosen)


def _newest_whole(
    latest: Checkpoint | None, begun: str | None, own: Path | None, stack: contextlib.ExitStack
) -> Checkpoint | Path | str | None:
    if latest is None:
        return begun
    if (fault := _fault(latest, stack)) is None:
        return latest
    print(f"warning: checkpoint {latest.path} is torn ({fault}); an older one is looked for", flush=True)
    if own is not None:
        with contextlib.suppress(WeightsError):
            if (found := newest_whole(own)) is not None:
                return found
    for older in _before(latest):
        if _fault(older, stack) is None:
            return older
    if begun is None:
        folder = posixpath.dirname(latest.path)
        raise TrainingError(
            f"one checkpoint in {folder} must be whole, not one is; remove that folder to train from the "
            "beginning"
        )
    return begun


def _fault(checkpoint: Checkpoint, stack: contextlib.ExitStack) -> str | None:
    """What is wrong with a checkpoint; where it had to be fetched, what was fetched stays until the end."""
    try:
        return fault_of(Path(stack.enter_context(checkpoint.as_directory())))
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


def _before(latest: Checkpoint) -> list[Checkpoint]:
    """Those that Ray Train keeps beside its last one, newest first; their names are times."""
    found = latest.filesystem.get_file_info(
        FileSelector(posixpath.dirname(latest.path), allow_not_found=True)
    )
    name = posixpath.basename(latest.path)
    older = [
        one
        for one in found
        if one.type == FileType.Directory and one.base_name.startswith("checkpoint_") and one.base_name < name
    ]
    older.sort(key=lambda one: str(one.base_name), reverse=True)
    return [Checkpoint(one.path, latest.filesystem) for one in older]
