"""The tasks of a split, over a cluster, by Ray Data. Every node must see the same folders."""

from __future__ import annotations

import dataclasses
import logging
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from dbf_ray.cluster.ray_runtime import connected_ray
from dbf_ray.data.patches.cutting import SplitCounts, SplitTask, cut
from dbf_ray.errors import DataError, ResourceError
from dbf_ray.values import plain_text

_ROWS_PER_CPU = 8  # how many parts the tasks are dealt out in


def split_on_ray(tasks: Sequence[SplitTask], address: str | None = None) -> Iterator[SplitCounts | DataError]:
    """Counts of each task in the order in which they are done, an error in place of those of a task that
    failed.

    Args:
        tasks: from :func:`.split.split_work`, with paths that all nodes see.
        address: of the cluster; None: the one of RAY_ADDRESS, or a local Ray.

    Raises:
        ResourceError: the cluster cannot be reached, or Ray Data gives up.
    """
    if not tasks:
        return
    with connected_ray(address, option="--address") as resources:
        import ray.data

        _be_quiet()
        parts = min(len(tasks), max(1, resources.cpus) * _ROWS_PER_CPU)
        rows = ray.data.from_items(
            [{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=parts
        )
        try:
            for row in rows.map(_run).iter_rows():
                yield (
                    DataError(row["error"])
                    if row["error"]
                    else SplitCounts(**{name: int(row[name]) for name in _COUNTS})
                )
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise ResourceError(
                f"the cluster gave up cutting images: {reason}; what is done is kept: start again"
            ) from error


_COUNTS = [field.name for field in dataclasses.fields(SplitCounts)]


def _run(row: dict[str, Any]) -> dict[str, Any]:
    """In a Ray worker: one task."""
    done = cut(pickle.loads(row["task"]))
    if isinstance(done, DataError):
        return {**dataclasses.asdict(SplitCounts()), "error": plain_text(str(done))}
    return {**dataclasses.asdict(done), "error": ""}


def _be_quiet() -> None:
    """No bars and no log of Ray Data's: the caller says how far it is."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
