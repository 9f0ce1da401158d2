"""What a search would learn by checking a configuration, without data or a detector."""

from __future__ import annotations

from typing import Any

from dbf_ray.config import Config
from dbf_ray.freezing import Horizon
from dbf_ray.search.settings import Beginning


def four_stages(config: Config, always_frozen: int = 0, **more: Any) -> Beginning:
    """The beginning of a run with a backbone of four stages; one step an epoch. A third of their FLOPs are
    the forward pass.
    """
    more = {"costs": (12.0, 10.0, 8.0, 6.0, 4.0), **more}
    return Beginning(Horizon(config.training.epochs, 4, always_frozen=always_frozen, **more), {})
