"""Policy ``gradual_unfreeze(every)``: stages thaw from the head down (ULMFiT, arXiv 1801.06146, section
3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_int


@dataclass(frozen=True)
class GradualUnfreeze(Policy):
    """n(e) = max(0, K - 1 - floor(e / every)): the last stage is trained from the beginning, one more after
    each ``every`` epochs.

    With K = 1 it equals full fine-tuning.

    Args:
        every: epochs from one thaw to the next, >= 1.

    Raises:
        ConfigError: a parameter is out of range.
    """

    name: ClassVar[str] = "gradual_unfreeze"

    every: int

    def __post_init__(self) -> None:
        require_int("every", self.every, low=1, owner="policy gradual_unfreeze")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Freeze ever fewer stages."""
        return Decision(max(0, progress.num_stages - 1 - progress.epoch // self.every)), state
