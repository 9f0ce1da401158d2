"""The family of freezing policies: one line per member in :data:`MEMBERS`.

A new member is a class derived from :class:`Schedule` or :class:`Policy` in a file of its own, a line here,
and a row in the shared exam (tests/freezing/policy_members.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies.aimd import Aimd
from dbf_ray.freezing.policies.base import Decision, Horizon, Policy, Schedule, Signals, State
from dbf_ray.freezing.policies.budget import Budget
from dbf_ray.freezing.policies.chance import Bernoulli, RandomBudget
from dbf_ray.freezing.policies.constant import Frozen, Full
from dbf_ray.freezing.policies.cosine import Cosine
from dbf_ray.freezing.policies.drift import Drift
from dbf_ray.freezing.policies.ends import Back, Front
from dbf_ray.freezing.policies.epochs import Epochs
from dbf_ray.freezing.policies.gradnorm import GradNorm
from dbf_ray.freezing.policies.gradual import GradualFreeze, GradualUnfreeze
from dbf_ray.freezing.policies.multirate_step import MultirateStep
from dbf_ray.freezing.policies.plateau import Plateau
from dbf_ray.freezing.policies.slower import LayerDecay, LrScale
from dbf_ray.freezing.policies.step import Step, WarmupStep

__all__ = [
    "POLICIES",
    "Decision",
    "Horizon",
    "Policy",
    "Schedule",
    "Signals",
    "State",
    "make_policy",
    "policy_from_dict",
    "policy_to_dict",
]

MEMBERS: tuple[type[Policy], ...] = (
    *(Full, Frozen, Step, Epochs, RandomBudget, Bernoulli, Front, Back, LrScale, LayerDecay, WarmupStep),
    *(Cosine, GradualUnfreeze, GradualFreeze, MultirateStep, GradNorm, Aimd, Drift, Plateau, Budget),
)
POLICIES: dict[str, type[Policy]] = {member.name: member for member in MEMBERS}


def make_policy(name: str, **parameters: Any) -> Policy:
    """Make a policy by name.

    Args:
        name: a key of :data:`POLICIES`.
        parameters: the policy's own parameters, for example ``rho=5``.

    Raises:
        ConfigError: unknown policy, unknown or missing parameter, or a value out of range.
    """
    member = POLICIES.get(name) if isinstance(name, str) else None
    if member is None:
        close = difflib.get_close_matches(str(name), POLICIES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"unknown freezing policy {name!r}; known policies: {', '.join(POLICIES)}{hint}")
    return member(**parameters)


def policy_to_dict(policy: Policy) -> dict[str, Any]:
    """``{"name": ..., "parameters": {...}}`` of plain JSON values."""
    return {"name": policy.name, "parameters": policy.parameters()}


def policy_from_dict(data: Mapping[str, Any]) -> Policy:
    """The inverse of :func:`policy_to_dict`.

    Raises:
        ConfigError: a key is missing or unknown, or :func:`make_policy` refuses the values.
    """
    if (
        not isinstance(data, Mapping)
        or set(data) != {"name", "parameters"}
        or not isinstance(data["parameters"], Mapping)
    ):
        raise ConfigError(f"a policy must be a mapping of name and parameters, got {data!r}")
    return make_policy(data["name"], **data["parameters"])
