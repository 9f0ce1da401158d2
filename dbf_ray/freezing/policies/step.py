"""Policy ``step(rho, phase=0)``: Dynamic Backbone Freezing's rule (arXiv 2407.15143).

The backbone is trained in epochs phase, phase + rho, phase + 2 rho, ... (0-based) and frozen in all others.
Phase 0 is the paper's. rho = 1 is full fine-tuning; rho >= E with phase 0 trains the backbone in epoch 0
only; a phase >= E trains it never.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_int


@dataclass(frozen=True)
class Step(Policy):
    """n(e) = 0 iff (e - phase) mod rho = 0 (Euclidean: the remainder is never negative), else K.

    Args:
        rho: period in epochs, >= 1.
        phase: first epoch whose backbone is trained, 0 <= phase < rho.

    Raises:
        ConfigError: a parameter is out of range.
    """

    name: ClassVar[str] = "step"

    rho: int
    phase: int = 0

    def __post_init__(self) -> None:
        require_int("rho", self.rho, low=1, owner="policy step")
        require_int("phase", self.phase, low=0, high=self.rho - 1, owner=f"policy step with rho {self.rho}")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Train the backbone every rho-th epoch."""
        due = (progress.epoch - self.phase) % self.rho == 0  # Python's % is Euclidean for a positive modulus
        return Decision(0 if due else progress.num_stages), state
