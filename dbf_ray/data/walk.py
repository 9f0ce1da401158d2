"""A function over many items in several processes, of which any may die without ending the walk."""

from __future__ import annotations

import collections
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from dbf_ray.errors import ResourceError

T = TypeVar("T")
R = TypeVar("R")
WINDOW = (
    4  # items given out for each process at a time: those that are looked at again one by one after a death
)


def walk(
    function: Callable[[T], R], items: Sequence[T], workers: int, fewest: int = 1
) -> Iterator[tuple[int, R | None]]:
    """Indices and results in the order in which they are done; None for an item that ended its process.

    After a death it is not known which of the items given out was the cause: they are tried again one by one.

    Args:
        function: importable by name, as items and results must be picklable; what it raises ends the walk.
        items: given out one by one.
        workers: processes at most; 0: this one, which then is not protected.
        fewest: items for each process at least: one takes seconds to start.

    Raises:
        ResourceError: no process can be started.
    """
    if workers == 0:
        for index, item in enumerate(items):
            yield index, function(item)
        return
    waiting = collections.deque(range(len(items)))
    workers = min(workers, -(-len(items) // fewest))
    while waiting:
        suspects = yield from _until_death(function, items, waiting, workers)
        yield from _one_by_one(function, items, suspects)


def _until_death(
    function: Callable[[T], R], items: Sequence[T], waiting: collections.deque[int], workers: int
) -> collections.abc.Generator[tuple[int, R], None, list[int]]:
    """Take from ``waiting`` until it is empty or a process dies; returns what was given out and has no
    result.
    """
    given: dict[Future[R], int] = {}
    with _pool(min(workers, len(waiting))) as pool:
        try:
            while waiting or given:
                while waiting and len(given) < WINDOW * workers:
                    given[pool.submit(function, items[waiting[0]])] = waiting[0]
                    waiting.popleft()
                for future in wait(given, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield given.pop(future), result
        except BrokenProcessPool:
            finished = {
                future: index
                for future, index in given.items()
                if future.done() and future.exception() is None
            }
            for future, index in finished.items():
                yield index, future.result()
            suspects = sorted(index for future, index in given.items() if future not in finished)
            return suspects or [waiting.popleft()]  # it died before it was given anything
        finally:
            for future in given:
                future.cancel()
    return []


def _one_by_one(
    function: Callable[[T], R], items: Sequence[T], suspects: Sequence[int]
) -> Iterator[tuple[int, R | None]]:
    """Suspects in turn in one process, a new one after each death."""
    remaining = collections.deque(suspects)
    while remaining:
        with _pool(1) as pool:
            try:
                pool.submit(_nothing).result()
            except BrokenProcessPool as error:
                raise ResourceError(
                    "processes to read images in end as soon as they start; do without them (workers 0)"
                ) from error
            while remaining:
                index = remaining.popleft()
                try:
                    yield index, pool.submit(function, items[index]).result()
                except BrokenProcessPool:
                    yield index, None
                    break


def _pool(workers: int) -> ProcessPoolExecutor:
    # forked processes would inherit torch's threads in whatever state they are
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _begin)


def _begin() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _nothing() -> None:
    """Done where a process can be started at all."""
