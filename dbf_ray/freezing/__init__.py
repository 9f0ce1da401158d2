"""Freezing: policies decide, the freezer applies, the detector knows neither.

``dbf_ray.freezing.policies`` is pure Python; names that need torch are loaded when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dbf_ray.freezing.policies import (
    POLICIES,
    Decision,
    Horizon,
    Policy,
    Schedule,
    make_policy,
    policy_from_dict,
    policy_to_dict,
)

if TYPE_CHECKING:
    from dbf_ray.freezing.freezer import Freezer
    from dbf_ray.freezing.schedule import FreezingSchedule
    from dbf_ray.freezing.stages import Staged, budget, check_backbone, effective_prefix, stage_parameters

__all__ = [
    "POLICIES",
    "Decision",
    "Freezer",
    "FreezingSchedule",
    "Horizon",
    "Policy",
    "Schedule",
    "Staged",
    "budget",
    "check_backbone",
    "effective_prefix",
    "make_policy",
    "policy_from_dict",
    "policy_to_dict",
    "stage_parameters",
]

_NEED_TORCH = {
    "Freezer": "freezer",
    "FreezingSchedule": "schedule",
    "Staged": "stages",
    "budget": "stages",
    "check_backbone": "stages",
    "effective_prefix": "stages",
    "stage_parameters": "stages",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_TORCH:
        return getattr(importlib.import_module(f"dbf_ray.freezing.{_NEED_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
