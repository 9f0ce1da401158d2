"""Policies ``random_budget(budget)`` and ``bernoulli(p)``: controls without structure. Does the *placement*
of unfrozen epochs matter?

Their chance depends on a key alone: the same on every rank, machine and version of Python.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Annotated

from pydantic import Field, NonNegativeInt

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies.base import Horizon, Schedule

BITS = 53  # of a double's mantissa, so that every value is exact


def uniform(*key: int | str) -> float:
    """A number in [0, 1) that looks random, fixed by its key; multiples of 2**-53."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - BITS)) / 2**BITS


class RandomBudget(Schedule):
    """n(t) = 0 in exactly ``budget`` epochs drawn without replacement, else K: as many unfrozen epochs as
    ``step``, at random places.

    The epochs with the ``budget`` smallest of E random numbers are drawn, so that all sets are equally
    likely.

    Args:
        budget: unfrozen epochs, 0..E.
        draw: which draw, the same whatever the run's seed is, so that one draw can be trained with several
            seeds; None: by the run's seed.
    """

    name = "random_budget"

    budget: NonNegativeInt
    draw: NonNegativeInt | None = None

    def check(self, horizon: Horizon) -> None:
        """Refuse to draw more epochs than there are."""
        if self.budget > horizon.epochs:
            raise ConfigError(
                "policy random_budget: budget must be at most the number of epochs (or blocks) to draw from, "
                f"{horizon.epochs}, got {self.budget}"
            )

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Train the backbone if this epoch was drawn."""
        self.check(horizon)
        key = (horizon.seed,) if self.draw is None else ("draw", self.draw)
        return 0 if t in _draw(self.budget, horizon.epochs, *key) else horizon.num_stages


class Bernoulli(Schedule):
    """n(t) = 0 with chance p, drawn for each epoch by (seed, t), else K.

    Args:
        p: chance that an epoch's backbone is trained, 0..1.
    """

    name = "bernoulli"

    p: Annotated[float, Field(ge=0, le=1)]

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Toss the epoch's coin."""
        return 0 if uniform(self.name, horizon.seed, t) < self.p else horizon.num_stages


@functools.lru_cache(maxsize=8)
def _draw(budget: int, epochs: int, *key: int | str) -> frozenset[int]:
    numbers = {t: uniform(RandomBudget.name, *key, t) for t in range(epochs)}
    return frozenset(sorted(numbers, key=lambda t: (numbers[t], t))[:budget])
