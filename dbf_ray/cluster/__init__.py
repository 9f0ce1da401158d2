"""Training runs on the workers of a Ray cluster, or of a local Ray.

Names are loaded when they are first asked for: the relay's process needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbf_ray.cluster.ray_runtime import Resources, available_resources, connected_ray, require
    from dbf_ray.cluster.train import train_on_ray

__all__ = ["Resources", "available_resources", "connected_ray", "require", "train_on_ray"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = "train" if name == "train_on_ray" else "ray_runtime"
    return getattr(importlib.import_module(f"dbf_ray.cluster.{room}"), name)
