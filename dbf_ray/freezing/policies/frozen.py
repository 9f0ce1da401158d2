"""Policy ``frozen``: the backbone is never trained. The cheapest baseline; sensible only with pretrained
weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State


@dataclass(frozen=True)
class Frozen(Policy):
    """n(e) = K."""

    name: ClassVar[str] = "frozen"

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Freeze the whole backbone."""
        return Decision(progress.num_stages), state
