"""Policy ``budget(limit, inner)``: any other policy, under a ceiling of compute that it can never break."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies.base import Decision, Policy, Progress, Signals, State, require_number

TOLERANCE = 1e-9  # relative: a limit that a timeline meets exactly must not fail by rounding


@dataclass(frozen=True)
class Budget(Policy):
    """What ``inner`` decides, but an unfrozen epoch is granted only if what is left of the budget, with all
    remaining epochs reserved as frozen, pays for it; otherwise n = K.

    The inner policy is not told: it sees an epoch that gave no signals of an unfrozen one.

    Args:
        limit: of the whole run in compute_ratio, > 0 and <= 1, and not below the ratio of policy ``frozen``.
        inner: name and parameters of the policy, ``{"name": "step", "rho": 2}``.

    Raises:
        ConfigError: a parameter is out of range, the inner policy is refused; or, once costs are known, the
            limit is below frozen's.
    """

    name: ClassVar[str] = "budget"

    limit: float
    inner: Mapping[str, Any]

    def __post_init__(self) -> None:
        from dbf_ray.freezing.policies import make_policy  # the table has this policy in it

        require_number("limit", self.limit, low=0, high=1, above=True, owner="policy budget")
        if (
            not isinstance(self.inner, Mapping)
            or "name" not in self.inner
            or not all(isinstance(key, str) for key in self.inner)
        ):
            raise ConfigError(
                f"policy budget: inner must be a policy's name and parameters, like {{name: step, rho: 2}}, "
                f"got {self.inner!r}"
            )
        parameters = {key: value for key, value in self.inner.items() if key != "name"}
        try:
            policy = make_policy(self.inner["name"], **parameters)
        except ConfigError as error:
            raise ConfigError(f"policy budget: inner must be a policy: {error}") from error
        object.__setattr__(self, "_policy", policy)
        object.__setattr__(self, "inner", {"name": policy.name, **policy.parameters()})

    @property
    def policy(self) -> Policy:
        """The inner policy."""
        return self._policy  # type: ignore[attr-defined]

    @property
    def needs_signals(self) -> tuple[str, ...]:
        """Those of the inner policy."""
        return self.policy.needs_signals

    def check(self, run: Progress) -> None:
        """Refuse a run whose costs are not known, or that costs more than the limit even if its backbone is
        always frozen.
        """
        self.policy.check(run)
        if run.costs is None:
            raise ConfigError(
                "policy budget: the costs of each frozen prefix must be known; give costs to decisions(), "
                "or train by a configuration"
            )
        least = run.costs[-1] / run.costs[0]
        if self.limit < least * (1 - TOLERANCE):
            raise ConfigError(
                f"policy budget: limit must be >= {least:.6g}, the compute_ratio of a backbone that is "
                f"never trained, got {self.limit!r}; "
                "no policy can go below it"
            )

    def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
        """Grant or refuse what the inner policy wants."""
        self.check(progress)
        assert progress.costs is not None
        wanted, inner = self.policy.decide(progress, signals, state.get("inner", {}))
        spent, stages, here = state.get("spent", 0), progress.num_stages, progress.steps(progress.epoch)
        allowed = self.limit * progress.costs[0] * progress.all_steps
        reserved = progress.costs[stages] * (
            progress.all_steps - progress.epoch * progress.block_steps - here
        )
        if wanted.num_frozen < stages and spent + progress.costs[
            wanted.num_frozen
        ] * here + reserved > allowed * (1 + TOLERANCE):
            wanted = dataclasses.replace(wanted, num_frozen=stages)
        return wanted, {"spent": spent + progress.costs[wanted.num_frozen] * here, "inner": inner}
