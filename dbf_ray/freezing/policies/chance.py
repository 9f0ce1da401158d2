"""Chance that depends on a key alone: the same on every rank, machine and version of Python."""

from __future__ import annotations

import hashlib

BITS = 53  # of a double's mantissa, so that every value is exact


def uniform(*key: int | str) -> float:
    """A number in [0, 1) that looks random, fixed by its key; multiples of 2**-53."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - BITS)) / 2**BITS
