"""Micro-batches: the parts of an effective batch that pass through the network one after the other, larger
where more of it is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dbf_ray.errors import ResourceError

MicroBatch = tuple[list[Any], list[Any]]


def merged(micro_batches: Sequence[MicroBatch], count: int) -> list[MicroBatch]:
    """The images and targets of a step's micro-batches in ``count`` larger ones, a divisor of their number,
    in the same order.
    """
    size = len(micro_batches) // count
    groups = [micro_batches[first : first + size] for first in range(0, len(micro_batches), size)]
    return [
        ([i for images, _ in group for i in images], [t for _, targets in group for t in targets])
        for group in groups
    ]


def fewest(
    accumulation: int, images: int, counts: Iterable[int], needed: Callable[[int, int], int], limit: int
) -> int:
    """Into how few micro-batches a step can be merged within a limit of memory.

    Args:
        accumulation: A, micro-batches of a step as they are, of equally many images.
        images: in each of them.
        counts: numbers of micro-batches to choose from; those that do not divide A are passed over.
        needed: bytes that a step needs with so many images in a micro-batch, and so many of these.
        limit: bytes.

    Raises:
        ResourceError: a micro-batch as it is does not fit.
    """
    divisors = sorted(count for count in counts if accumulation % count == 0)
    fitting = [count for count in divisors if needed(images * accumulation // count, count) <= limit]
    if not fitting:
        raise ResourceError(
            f"a step must fit into `micro_batch_gb` = {limit / 1e9:g}, with {images} images in a "
            f"micro-batch it needs "
            f"{needed(images, accumulation) / 1e9:.2f} GB; raise `accumulation` or "
            f"`micro_batch_gb`"
        )
    return fitting[0]
