"""Micro-batches: the parts of an effective batch that pass through the network one after the other, larger where more of it is frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dbf_ray.errors import ResourceError

MicroBatch = tuple[list[Any], list[Any]]


def merged(micro_batches: Sequence[MicroBatch], count: int) -> list[MicroBatch]:
    """The images and targets of a step's micro-batches in ``count`` larger ones, a divisor of their number, in the same order."""
    size = len(micro_batches) // count
    groups = [micro_batches[first : first + size] for first in range(0, len(micro_batches), size)]
    return [([i for images, _ in group for i in images], [t for _, targets in group for t in targets]) for group in groups]


def fewest(accumulation: int, images: int, prefixes: int, needed: Callable[[int, int], int], limit: int) -> list[int]:
    """Into how few micro-batches a step can be merged within a limit of memory, for each frozen prefix.

    Args:
        accumulation: A, micro-batches of a step as they are, of equally many images.
        images: in each of them.
        prefixes: K + 1.
        needed: bytes that a step needs with (prefix, images in a micro-batch).
        limit: bytes.

    Returns:
        A divisor of A for each prefix 0..K. A only where two of them do not fit together.

    Raises:
        ResourceError: A micro-batch as it is does not fit. Prefixes that never occur are looked at too, so ``needed`` should fall with the prefix.
    """
    chosen = []
    for prefix in range(prefixes):
        divisors = [count for count in range(1, accumulation + 1) if accumulation % count == 0]
        fitting = [count for count in divisors if needed(prefix, images * accumulation // count) <= limit]
        if not fitting:
            raise ResourceError(
                f"a step must fit into training.micro_batch_gb = {limit / 1e9:g}, with {prefix} stages frozen and {images} images in a micro-batch "
                f"it needs {needed(prefix, images) / 1e9:.2f} GB; raise training.accumulation or training.micro_batch_gb"
            )
        chosen.append(fitting[0])
    return chosen
