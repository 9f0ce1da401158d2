"""Policy ``gradnorm(percentile, window, recheck)``: AutoFreeze (arXiv 2102.01386, section 4.1) by stages,
with probes that can thaw.

AutoFreeze freezes a layer for ever once its gradient norm changes less than most layers' and all layers
before it are frozen. Here the parts are stages, norms are averaged over the optimizer steps of ``window``
epochs, and every ``recheck`` epochs one epoch trains all of the backbone, so that a stage whose gradients
have come alive is trained again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PositiveInt

from dbf_ray.freezing.policies.base import Decision, Horizon, Policy, Signals, State


class GradNorm(Policy):
    """n = the longest prefix of stages whose gradient norm changes less than the ``percentile`` of all
    trained stages' changes.

    The change of stage k is abs(now - before) / before, for its mean gradient norm of this window and the
    last. Frozen stages count as below. Below means strictly below, so that at least one stage is always
    trained; with K = 1 it equals full fine-tuning. A probe epoch is a window of its own, over all stages.

    Args:
        percentile: 0..100, interpolated linearly between the changes; 0 never freezes.
        window: unfrozen epochs from one comparison to the next, >= 1.
        recheck: epochs from one epoch that trains all of the backbone to the next, >= 1, once something is
            frozen.
    """

    name = "gradnorm"
    needs_signals = ("gradient_norms",)  # each stage's mean over the epoch's steps, None for frozen ones

    percentile: Annotated[float, Field(ge=0, le=100)]
    window: PositiveInt
    recheck: PositiveInt

    def decide(self, t: int, horizon: Horizon, signals: Signals, state: State) -> tuple[Decision, State]:
        """Compare at the end of a window, and probe now and then."""
        memory = _Memory(**state) if state else _Memory()
        norms: Sequence[float | None] | None = signals["gradient_norms"]
        if memory.probing and (norms is None or None in norms[horizon.always_frozen :]):
            # a probe that was not granted
            memory = _Memory(memory.prefix, memory.whole, False, memory.before)
        elif norms is not None:
            memory = self._learn(memory, norms)
        if memory.prefix <= horizon.always_frozen:
            memory = _Memory(0, t, False, memory.before, memory.sums, memory.count)
        elif t - memory.whole >= self.recheck:
            return Decision(0), vars(_Memory(memory.prefix, t, True, memory.before))
        return Decision(memory.prefix), vars(memory)

    def _learn(self, memory: _Memory, norms: Sequence[float | None]) -> _Memory:
        """Add an epoch's norms; at the end of the window compare."""
        sums = [0.0] * len(norms) if memory.sums is None else memory.sums
        sums = [None if a is None or b is None else a + b for a, b in zip(sums, norms, strict=True)]
        count = memory.count + 1
        if count < (1 if memory.probing else self.window):
            return _Memory(memory.prefix, memory.whole, False, memory.before, sums, count)
        means = [None if total is None else total / count for total in sums]
        before = [None] * len(means) if memory.before is None else memory.before
        changes = [
            None if a is None or b is None else _change(a, b) for a, b in zip(means, before, strict=True)
        ]
        known = sorted(change for change in changes if change is not None)
        prefix = 0
        if known:
            limit = _percentile(known, self.percentile)
            still = [
                mean is None or (change is not None and change < limit)
                for mean, change in zip(means, changes, strict=True)
            ]
            prefix = still.index(False) if False in still else len(still)
        kept = [b if mean is None else mean for mean, b in zip(means, before, strict=True)]
        return _Memory(prefix, memory.whole, False, kept)


@dataclass(frozen=True)
class _Memory:
    """Prefix in force, last epoch that trained all stages, whether it was a probe, norms of the last window,
    and the window under way.
    """

    prefix: int = 0
    whole: int = 0
    probing: bool = False
    before: list[float | None] | None = None
    sums: list[float | None] | None = None
    count: int = 0


def _change(now: float, before: float) -> float:
    if before == 0:
        return 0.0 if now == 0 else math.inf
    return abs(now - before) / before


def _percentile(values: Sequence[float], percent: float) -> float:
    """Of sorted values, linearly interpolated."""
    place = (len(values) - 1) * percent / 100
    low, high = values[math.floor(place)], values[math.ceil(place)]
    return low if low == high else low + (high - low) * (place - math.floor(place))
