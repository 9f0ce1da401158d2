"""Policy ``aimd(threshold, start=2, max_rho)``: a period that finds itself, as the freezing period of
Adaptive Parameter Freezing does (APF, ICDCS 2021, section 4: additive increase, multiplicative decrease, as
in TCP), for the whole backbone.
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


@dataclass(frozen=True, kw_only=True)
class Aimd(Policy):
    """Integer rho from ``start``. After an unfrozen epoch, with P = norm(sum of updates) / sum of norms over
    its optimizer steps:

    P < threshold (the steps cancel each other, the backbone gets nowhere): rho = min(rho + 1, max_rho); else
    rho = max(1, rho // 2). The next unfrozen epoch comes rho epochs later. Epoch 0 is unfrozen. P is APF's
    effective perturbation.

    Args:
        threshold: of P, 0..1.
        start: first period in epochs, >= 1.
        max_rho: longest period, >= start.

    Raises:
        ConfigError: a parameter is out of range.
    """

    name: ClassVar[str] = "aimd"

    threshold: float
    start: int = 2
    max_rho: int

    @property
    def needs_signals(self) -> tuple[str, ...]:
        """P of the backbone's trained parameters, None after a frozen epoch."""
        return ("effective_perturbation",)

    def __post_init__(self) -> None:
        require_number("threshold", self.threshold, low=0, high=1, owner="policy aimd")
        require_int("start", self.start, low=1, owner="policy aimd")
        require_int("max_rho", self.max_rho, low=1, owner="policy aimd")
        if self.max_rho < self.start:
            raise ConfigError(f"policy aimd: max_rho must be >= start = {self.start}, got {self.max_rho}")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Lengthen or halve the period after an unfrozen epoch; train the backbone when it is over."""
        rho, last = state.get("rho", self.start), state.get("last", -self.start)
        perturbation: float | None = signals["effective_perturbation"]
        if perturbation is not None:
            rho = min(rho + 1, self.max_rho) if perturbation < self.threshold else max(1, rho // 2)
        if not state or progress.epoch >= last + rho:
            return Decision(0), {"rho": rho, "last": progress.epoch}
        return Decision(progress.num_stages), {"rho": rho, "last": last}
