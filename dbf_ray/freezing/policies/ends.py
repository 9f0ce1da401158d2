"""Policies ``front(budget)`` and ``back(budget)``: all unfrozen epochs in a row, at the beginning (as when a
backbone is frozen once it has adapted) or at the end.
"""

from __future__ import annotations

from pydantic import NonNegativeInt

from dbf_ray.freezing.policies.base import Horizon, Schedule


class Front(Schedule):
    """n(t) = 0 iff t < budget, else K.

    Args:
        budget: unfrozen epochs, >= 0; E or more is full fine-tuning.
    """

    name = "front"

    budget: NonNegativeInt

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Train the backbone in the first epochs."""
        return 0 if t < self.budget else horizon.num_stages


class Back(Schedule):
    """n(t) = 0 iff t >= E - budget, else K.

    Args:
        budget: unfrozen epochs, >= 0; E or more is full fine-tuning.
    """

    name = "back"

    budget: NonNegativeInt

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Train the backbone in the last epochs."""
        return 0 if t >= horizon.epochs - self.budget else horizon.num_stages
