"""Random numbers that depend on a key alone: the same on every machine, in every process, for every library
version.

Only PCG64's raw 64-bit output and the seeding of ``numpy.random.SeedSequence`` are used; numpy guarantees
both never to change, while it may change what its distributions make of them. Everything else is integer
arithmetic or single, correctly rounded operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

# What a stream is for is the first number of its key, so that no two uses ever share numbers.
ORDER, ORIENTATION, SCENE, SAMPLING, AUGMENT = 1, 2, 3, 4, 5


class Stream:
    """A stream of random numbers fixed by its key, a sequence of non-negative integers such as (ORIENTATION,
    seed, epoch, index).
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))
        self._buffer: list[int] = []

    def raw(self, count: int) -> NDArray[np.uint64]:
        """Return ``count`` raw 64-bit numbers, past what single draws have buffered."""
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def below(self, bound: int) -> int:
        """Draw an integer in [0, bound), bound < 2**32."""
        return ((self._next() >> 32) * bound) >> 32

    def between(self, low: int, high: int) -> int:
        """Draw an integer in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def uniform(self, low: float, high: float) -> float:
        """Draw a number from low up to high, out of 2**53 evenly spaced ones; high itself comes up by
        rounding at most.
        """
        return low + (high - low) * ((self._next() >> 11) * 2.0**-53)

    def chance(self, percent: int) -> bool:
        """True with the given chance in percent."""
        return self.below(100) < percent

    def choice(self, items: Sequence[T]) -> T:
        """One of ``items``, all with equal chance."""
        return items[self.below(len(items))]

    def octets(self, height: int, width: int) -> NDArray[np.uint8]:
        """A [height, width] array of random bytes."""
        count = height * width
        return self.raw((count + 7) // 8).astype("<u8").view(np.uint8)[:count].reshape(height, width)

    def permutation(self, count: int) -> list[int]:
        """The numbers 0 .. count - 1 in random order."""
        return np.argsort(self.raw(count), kind="stable").tolist()

    def _next(self) -> int:
        if not self._buffer:
            self._buffer = self.raw(64).tolist()
        return self._buffer.pop()
