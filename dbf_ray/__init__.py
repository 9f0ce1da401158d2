"""Dynamic Backbone Freezing for oriented detectors: training, search and tracking.

Everything here is loaded when it is first asked for: ``import dbf_ray`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbf_ray.api import (
        evaluate_checkpoint,
        plan_settings,
        predict_images,
        search_schedules,
        train_detector,
    )
    from dbf_ray.config import Config, load_config
    from dbf_ray.freezing.freezer import Freezer
    from dbf_ray.freezing.policies import make_policy
    from dbf_ray.freezing.schedule import FreezingSchedule

__all__ = [
    "Config",
    "Freezer",
    "FreezingSchedule",
    "evaluate_checkpoint",
    "load_config",
    "make_policy",
    "plan_settings",
    "predict_images",
    "search_schedules",
    "train_detector",
]

_HOMES = {
    "Config": "config.loading",
    "Freezer": "freezing.freezer",
    "FreezingSchedule": "freezing.schedule",
    "evaluate_checkpoint": "api",
    "load_config": "config.loading",
    "make_policy": "freezing.policies",
    "plan_settings": "api",
    "predict_images": "api",
    "search_schedules": "api",
    "train_detector": "api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"dbf_ray.{_HOMES[name]}"), name)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("dbf-ray")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
