"""A function over many items, in several processes; one item's error does not stop the others."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from dbf_ray.errors import DbfRayError, ResourceError

T = TypeVar("T")
R = TypeVar("R")


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R | DbfRayError]:
    """Results in the order in which they are done, an error of this project in place of a result.

    Args:
        function: importable by name, as the items must be picklable.
        items: given out one by one.
        workers: processes; 1: this one.

    Raises:
        ResourceError: a process was ended from outside, as by a machine that is out of memory.
    """
    if workers == 1 or len(items) < 2:
        for item in items:
            yield _guarded(function, item)
        return
    context = multiprocessing.get_context("spawn")  # forked processes would inherit torch's threads in whatever state they are
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(items)), context, _begin) as pool:
        futures = [pool.submit(_guarded, function, item) for item in items]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise ResourceError(
                f"one of {workers} processes was ended from outside, probably for want of memory; what is done is kept: "
                "start again with fewer --workers"
            ) from error
        finally:
            for future in futures:
                future.cancel()


def _begin() -> None:
    torch.set_num_threads(1)


def _guarded(function: Callable[[T], R], item: T) -> R | DbfRayError:
    try:
        return function(item)
    except DbfRayError as error:
        return error
