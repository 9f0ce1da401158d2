"""Policy ``layer_decay(xi)``: never frozen, early stages slower (discriminative fine-tuning of ULMFiT, arXiv
1801.06146, which takes xi = 1/2.6 per layer; layer-wise decay of BEiT, arXiv 2106.08254). Like ``lr_scale`` a
control, which saves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_number


@dataclass(frozen=True)
class LayerDecay(Policy):
    """n(e) = 0; the learning rate of stage k = 1..K is lr * xi ** (K - k).

    Args:
        xi: decay from each stage to the one before, 0 < xi <= 1; 1 is full fine-tuning.

    Raises:
        ConfigError: xi is out of range.
    """

    name: ClassVar[str] = "layer_decay"

    xi: float

    def __post_init__(self) -> None:
        require_number("xi", self.xi, low=0, high=1, above=True, owner="policy layer_decay")

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Train everything, early stages slowly."""
        stages = progress.num_stages
        return Decision(0, tuple(float(self.xi) ** (stages - k) for k in range(1, stages + 1))), state
