"""Policy ``drift(low, high, recheck)``: the backbone is frozen once its features have moved far enough.

How far is told by linear centred kernel alignment (CKA, arXiv 1905.00414, eq. 3 with linear kernels), 1 for
features that are equal up to rotation and scale.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from dbf_ray.freezing.policies.base import Decision, Horizon, Policy, Signals, State

TRAINED, FROZEN, PROBED = "trained", "frozen", "probed"


class Drift(Policy):
    """D = 1 - CKA of fixed probe images' features after an epoch and at the last unfreezing. Epoch 0 is
    unfrozen.

    The first unfrozen span ends once D > high. From then on an unfrozen probe epoch comes ``recheck`` epochs
    after the last unfrozen one; a span that begins with a probe goes on while D < low.

    Args:
        low: 0..1.
        high: low..1.
        recheck: epochs from the last unfrozen one to the next probe, >= 1; 1 never freezes.
    """

    name = "drift"
    needs_signals = ("feature_drift",)  # D, None after a frozen epoch

    low: Annotated[float, Field(ge=0, le=1)]
    high: Annotated[float, Field(ge=0, le=1)]
    recheck: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high < self.low:
            raise ValueError(f"high must be >= low = {self.low!r}, got {self.high!r}")
        return self

    def decide(self, t: int, horizon: Horizon, signals: Signals, state: State) -> tuple[Decision, State]:
        """Freeze after a long enough way, and probe now and then."""
        phase, last = state.get("phase", TRAINED), state.get("last", 0)
        drift: float | None = signals["feature_drift"]
        if (phase == TRAINED and drift is not None and drift > self.high) or (
            phase == PROBED and (drift is None or drift >= self.low)
        ):
            phase = FROZEN
        if phase == FROZEN and t - last >= self.recheck:
            phase = PROBED
        if phase == FROZEN:
            return Decision(horizon.num_stages), {"phase": phase, "last": last}
        return Decision(0), {"phase": phase, "last": t}
