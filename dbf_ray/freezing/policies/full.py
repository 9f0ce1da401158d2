"""Policy ``full``: nothing is ever frozen. Plain fine-tuning, the baseline with compute_ratio 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State


@dataclass(frozen=True)
class Full(Policy):
    """n(e) = 0."""

    name: ClassVar[str] = "full"

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Train everything."""
        return Decision(0), state
