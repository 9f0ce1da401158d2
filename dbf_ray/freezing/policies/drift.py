"""Policy ``drift(low, high, recheck)``: the backbone is frozen once its features have moved far enough.

How far is told by linear centred kernel alignment (CKA, arXiv 1905.00414, eq. 3 with linear kernels), 1 for
features that are equal up to rotation and scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies.base import (
    Decision,
    Policy,
    Progress,
    Signals,
    State,
    require_int,
    require_number,
)

TRAINED, FROZEN, PROBED = "trained", "frozen", "probed"


@dataclass(frozen=True)
class Drift(Policy):
    """D = 1 - CKA of fixed probe images' features after an epoch and at the last unfreezing. Epoch 0 is
    unfrozen.

    The first unfrozen span ends once D > high. From then on an unfrozen probe epoch comes ``recheck`` epochs
    after the last unfrozen one; a span that begins with a probe goes on while D < low.

    Args:
        low: 0..1.
        high: low..1.
        recheck: epochs from the last unfrozen one to the next probe, >= 1; 1 never freezes.

    Raises:
        ConfigError: a parameter is out of range.
    """

    name: ClassVar[str] = "drift"

    low: float
    high: float
    recheck: int

    @property
    def needs_signals(self) -> tuple[str, ...]:
        """D, None after a frozen epoch."""
        return ("feature_drift",)

    def __post_init__(self) -> None:
        require_number("low", self.low, low=0, high=1, owner="policy drift")
        require_number("high", self.high, low=0, high=1, owner="policy drift")
        if self.high < self.low:
            raise ConfigError(f"policy drift: high must be >= low = {self.low!r}, got {self.high!r}")
        require_int("recheck", self.recheck, low=1, owner="policy drift")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Freeze after a long enough way, and probe now and then."""
        phase, last = state.get("phase", TRAINED), state.get("last", 0)
        drift: float | None = signals["feature_drift"]
        if (phase == TRAINED and drift is not None and drift > self.high) or (
            phase == PROBED and (drift is None or drift >= self.low)
        ):
            phase = FROZEN
        if phase == FROZEN and progress.epoch - last >= self.recheck:
            phase = PROBED
        if phase == FROZEN:
            return Decision(progress.num_stages), {"phase": phase, "last": last}
        return Decision(0), {"phase": phase, "last": progress.epoch}
