"""Policies ``full`` and ``frozen``: the two ends, between which all others lie."""

from __future__ import annotations

from dbf_ray.freezing.policies.base import Horizon, Schedule


class Full(Schedule):
    """n(t) = 0: nothing is ever frozen. Plain fine-tuning, the baseline with compute_ratio 1."""

    name = "full"

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Train everything."""
        return 0


class Frozen(Schedule):
    """n(t) = K: the backbone is never trained. The cheapest baseline, sensible with pretrained weights alone."""

    name = "frozen"

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Freeze the whole backbone."""
        return horizon.num_stages
