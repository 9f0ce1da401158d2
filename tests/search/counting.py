"""A trainer that only counts: each worker trains an epoch at a time, and every state is remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dbf_ray.search.sharing import Sharing
from dbf_ray.search.states import Names, deepest


def train_all(order: Sequence[Names], workers: int, most: int) -> tuple[Counter[str], int]:
    """Train settings, those that come first in ``order`` first, as far as they need not wait.

    Returns:
        How often each state was reached by training, and the most states that were kept at once.
    """
    sharing, have, trained, largest = Sharing(most), set[str](), Counter[str](), 0
    left, running = list(range(len(order))), dict[int, tuple[dict[int, str], int]]()
    while left or running:
        while left and len(running) < workers:
            ready = [one for one in left if not sharing.waits(order[one], have)]
            if not ready:
                break
            left.remove(ready[0])
            visit = sharing.begin(ready[0], order[ready[0]], [order[one] for one in left], have)
            running[ready[0]] = visit.keep, deepest(order[ready[0]], have)
        assert running, "those that are left wait for nobody"
        for number, (keep, epoch) in list(running.items()):
            trained[order[number][epoch + 1]] += 1
            running[number] = keep, epoch + 1
            if epoch + 1 in keep:
                have.add(keep[epoch + 1])
            sharing.reached(number, epoch + 1)
            if epoch + 2 == len(order[number]):
                sharing.end(number)
                del running[number]
            have &= sharing.needed([order[one] for one in left], have)
            largest = max(largest, len(have))
    return trained, largest
