"""Policy ``aimd(threshold, start=2, max_rho)``: a period that finds itself, as the freezing period of
Adaptive Parameter Freezing does (APF, ICDCS 2021, section 4: additive increase, multiplicative decrease, as
in TCP), for the whole backbone.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from dbf_ray.freezing.policies.base import Decision, Horizon, Policy, Signals, State


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
    """

    name = "aimd"
    needs_signals = ("effective_perturbation",)  # P of the backbone's trained parameters, None if frozen

    threshold: Annotated[float, Field(ge=0, le=1)]
    start: PositiveInt = 2
    max_rho: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_rho < self.start:
            raise ValueError(f"max_rho must be >= start = {self.start}, got {self.max_rho}")
        return self

    def decide(self, t: int, horizon: Horizon, signals: Signals, state: State) -> tuple[Decision, State]:
        """Lengthen or halve the period after an unfrozen epoch; train the backbone when it is over."""
        rho, last = state.get("rho", self.start), state.get("last", -self.start)
        perturbation: float | None = signals["effective_perturbation"]
        if perturbation is not None:
            rho = min(rho + 1, self.max_rho) if perturbation < self.threshold else max(1, rho // 2)
        if not state or t >= last + rho:
            return Decision(0), {"rho": rho, "last": t}
        return Decision(horizon.num_stages), {"rho": rho, "last": last}
