"""Policy ``budget(limit, inner)``: any other policy, under a ceiling of compute that it can never break."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any

from pydantic import Field, field_validator

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies.base import Decision, Horizon, Policy, Signals, State

TOLERANCE = 1e-9  # relative: a limit that a timeline meets exactly must not fail by rounding


class Budget(Policy):
    """What ``inner`` decides, but an unfrozen epoch is granted only if what is left of the budget, with all
    remaining epochs reserved as frozen, pays for it; otherwise n = K.

    The inner policy does not learn of it: it sees an epoch that gave no signals of an unfrozen one.

    Args:
        limit: of the whole run in compute_ratio, > 0 and <= 1, and not below the ratio of policy ``frozen``.
        inner: name and parameters of the policy, ``{"name": "step", "rho": 2}``.
    """

    name = "budget"
    needs_costs = True

    limit: Annotated[float, Field(gt=0, le=1)]
    inner: dict[str, Any]

    @field_validator("inner", mode="before")
    @classmethod
    def _is_a_policy(cls, given: Any) -> dict[str, Any]:
        from dbf_ray.freezing.policies import make_policy  # the table has this policy in it

        if (
            not isinstance(given, dict)
            or "name" not in given
            or not all(isinstance(key, str) for key in given)
        ):
            raise ValueError(
                f"inner must be a policy's name and parameters, like {{name: step, rho: 2}}, got {given!r}"
            )
        try:
            policy = make_policy(**given)
        except ConfigError as error:
            raise ValueError(f"inner must be a policy: {error}") from error
        return {"name": policy.name, **policy.parameters()}

    @functools.cached_property
    def policy(self) -> Policy:
        """The inner policy."""
        from dbf_ray.freezing.policies import make_policy

        return make_policy(**self.inner)

    @property
    def needs_signals(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the inner policy."""
        return self.policy.needs_signals

    def check(self, horizon: Horizon) -> None:
        """Refuse a run whose costs are not known, or that costs more than the limit even if its backbone is
        always frozen.
        """
        self.policy.check(horizon)
        if horizon.costs is None:
            raise ConfigError(
                "policy budget: the costs of each frozen prefix must be known; give costs to decisions(), or "
                "train by a configuration"
            )
        least = horizon.costs[-1] / horizon.costs[0]
        if self.limit < least * (1 - TOLERANCE):
            raise ConfigError(
                f"policy budget: limit must be >= {least:.6g}, the compute_ratio of a backbone that is never "
                f"trained, got {self.limit!r}; no policy can go below it"
            )

    def decide(self, t: int, horizon: Horizon, signals: Signals, state: State) -> tuple[Decision, State]:
        """Grant or refuse what the inner policy wants."""
        self.check(horizon)
        assert horizon.costs is not None
        wanted, inner = self.policy.decide(t, horizon, signals, state.get("inner", {}))
        spent, stages, here = state.get("spent", 0), horizon.num_stages, horizon.steps(t)
        allowed = self.limit * horizon.costs[0] * horizon.all_steps
        reserved = horizon.costs[stages] * (horizon.all_steps - t * horizon.block_steps - here)
        granted = spent + horizon.costs[wanted.num_frozen] * here + reserved <= allowed * (1 + TOLERANCE)
        if wanted.num_frozen < stages and not granted:
            wanted = dataclasses.replace(wanted, num_frozen=stages)
        return wanted, {"spent": spent + horizon.costs[wanted.num_frozen] * here, "inner": inner}
