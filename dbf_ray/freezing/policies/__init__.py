"""The family of freezing policies: one file per member, one line in :data:`POLICIES`.

A new member is a frozen dataclass derived from :class:`Policy` in its own file, a line in the table, and a
row in the shared exam (tests/freezing/test_policies.py).
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import Any

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies.aimd import Aimd
from dbf_ray.freezing.policies.back import Back
from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State
from dbf_ray.freezing.policies.bernoulli import Bernoulli
from dbf_ray.freezing.policies.budget import Budget
from dbf_ray.freezing.policies.cosine import Cosine
from dbf_ray.freezing.policies.drift import Drift
from dbf_ray.freezing.policies.epochs import Epochs
from dbf_ray.freezing.policies.front import Front
from dbf_ray.freezing.policies.frozen import Frozen
from dbf_ray.freezing.policies.full import Full
from dbf_ray.freezing.policies.gradnorm import GradNorm
from dbf_ray.freezing.policies.gradual_freeze import GradualFreeze
from dbf_ray.freezing.policies.gradual_unfreeze import GradualUnfreeze
from dbf_ray.freezing.policies.layer_decay import LayerDecay
from dbf_ray.freezing.policies.lr_scale import LrScale
from dbf_ray.freezing.policies.multirate_step import MultirateStep
from dbf_ray.freezing.policies.plateau import Plateau
from dbf_ray.freezing.policies.random_budget import RandomBudget
from dbf_ray.freezing.policies.step import Step
from dbf_ray.freezing.policies.warmup_step import WarmupStep

__all__ = [
    "POLICIES",
    "Decision",
    "Policy",
    "Progress",
    "Signals",
    "State",
    "make_policy",
    "policy_from_dict",
    "policy_to_dict",
]

MEMBERS: tuple[type[Policy], ...] = (
    *(
        Full,
        Frozen,
        Step,
        Epochs,
        RandomBudget,
        Bernoulli,
        Front,
        Back,
        LrScale,
        LayerDecay,
        WarmupStep,
        Cosine,
    ),
    *(GradualUnfreeze, GradualFreeze, MultirateStep, GradNorm, Aimd, Drift, Plateau, Budget),
)
POLICIES: dict[str, type[Policy]] = {member.name: member for member in MEMBERS}


def make_policy(name: str, **parameters: Any) -> Policy:
    """Make a policy by name.

    Args:
        name: a key of :data:`POLICIES`.
        parameters: the policy's own parameters, for example ``rho=5``.

    Raises:
        ConfigError: unknown policy, unknown or missing parameter, or a value out of range.

    Example:
        >>> make_policy("step", rho=3).decisions(epochs=6, num_stages=4, seed=0)
        [0, 4, 4, 0, 4, 4]
    """
    member = POLICIES.get(name) if isinstance(name, str) else None
    if member is None:
        close = difflib.get_close_matches(str(name), POLICIES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"unknown freezing policy {name!r}; known policies: {', '.join(POLICIES)}{hint}")
    fields: tuple[dataclasses.Field[Any], ...] = (
        dataclasses.fields(member) if dataclasses.is_dataclass(member) else ()
    )
    known = [field.name for field in fields]
    signature = f"{name}({', '.join(known)})" if known else f"{name}, which takes no parameters"
    unknown = [key for key in parameters if key not in known]
    if unknown:
        given = ", ".join(f"{key}={parameters[key]!r}" for key in unknown)
        raise ConfigError(f"policy {name} does not know {given}; it is {signature}")
    required = [
        f.name
        for f in fields
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [key for key in required if key not in parameters]
    if missing:
        raise ConfigError(
            f"policy {name} needs {', '.join(missing)}, got {parameters or 'no parameters'}; it is "
            f"{signature}"
        )
    return member(**parameters)


def policy_to_dict(policy: Policy) -> dict[str, Any]:
    """``{"name": ..., "parameters": {...}}`` of plain JSON values."""
    return {"name": policy.name, "parameters": json.loads(json.dumps(policy.parameters()))}


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
