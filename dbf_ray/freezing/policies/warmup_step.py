"""Policy ``warmup_step(warmup, rho)``: a head that has learned something first, then Dynamic Backbone
Freezing's rule.

A fresh head sends large, aimless gradients into the backbone; frozen epochs at the beginning keep them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_int


@dataclass(frozen=True)
class WarmupStep(Policy):
    """n(e) = K for e < warmup; from there on 0 iff (e - warmup) mod rho = 0, else K.

    Args:
        warmup: frozen epochs at the beginning, >= 0; 0 is step(rho).
        rho: period in epochs, >= 1.

    Raises:
        ConfigError: a parameter is out of range.
    """

    name: ClassVar[str] = "warmup_step"

    warmup: int
    rho: int

    def __post_init__(self) -> None:
        require_int("warmup", self.warmup, low=0, owner="policy warmup_step")
        require_int("rho", self.rho, low=1, owner="policy warmup_step")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Freeze while the head warms up, then train the backbone every rho-th epoch."""
        since = progress.epoch - self.warmup
        return Decision(0 if since >= 0 and since % self.rho == 0 else progress.num_stages), state
