"""Policies ``step(rho, phase=0)``, Dynamic Backbone Freezing's rule (arXiv 2407.15143), and
``warmup_step(warmup, rho)``, the same after a head has learned something.
"""

from __future__ import annotations

from typing import Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from dbf_ray.freezing.policies.base import Horizon, Schedule


class Step(Schedule):
    """n(t) = 0 iff (t - phase) mod rho = 0 (Euclidean: the remainder is never negative), else K: the backbone
    is trained in epochs phase, phase + rho, phase + 2 rho, ...

    Phase 0 is the paper's. rho = 1 is full fine-tuning; rho >= E with phase 0 trains the backbone in epoch 0
    only; a phase >= E trains it never.

    Args:
        rho: period in epochs, >= 1.
        phase: first epoch whose backbone is trained, 0 <= phase < rho.
    """

    name = "step"

    rho: PositiveInt
    phase: int = 0

    @model_validator(mode="after")
    def _phase_within(self) -> Self:
        if not 0 <= self.phase < self.rho:
            raise ValueError(
                f"phase must be an integer in 0..{self.rho - 1} with rho {self.rho}, got {self.phase}"
            )
        return self

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Train the backbone every rho-th epoch."""
        due = (t - self.phase) % self.rho == 0  # Python's % is Euclidean for a positive modulus
        return 0 if due else horizon.num_stages


class WarmupStep(Schedule):
    """n(t) = K for t < warmup; from there on 0 iff (t - warmup) mod rho = 0, else K.

    A fresh head sends large, aimless gradients into the backbone; frozen epochs at the beginning keep them
    out.

    Args:
        warmup: frozen epochs at the beginning, >= 0; 0 is step(rho).
        rho: period in epochs, >= 1.
    """

    name = "warmup_step"

    warmup: NonNegativeInt
    rho: PositiveInt

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Freeze while the head warms up, then train the backbone every rho-th epoch."""
        since = t - self.warmup
        return 0 if since >= 0 and since % self.rho == 0 else horizon.num_stages
