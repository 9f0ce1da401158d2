"""What a trial would train, and when two trials would train the same.

Two settings are the same if everything that shapes the training is: the configuration without names and
places, and with a freezing policy that is known before training replaced by what it does in each epoch. So at
8 epochs step(10) and step(12) are one setting, and step(1) is full.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dbf_ray.build import resolved
from dbf_ray.config import Config, FreezingConfig, identity, key_of, role_of, to_dict, with_overrides
from dbf_ray.freezing import Horizon, Policy, make_policy

Begin = Callable[[Config], Horizon]


@dataclass(frozen=True)
class Setting:
    """One point of a search space, as a complete configuration."""

    overrides: dict[str, Any]
    config: Config
    key: str
    policy: str
    parameters: dict[str, Any]

    @property
    def rho(self) -> int | None:
        """The policy's rho, if it has one."""
        return self.parameters.get("rho")

    def facts(self) -> dict[str, Any]:
        """What the study keeps of it, as JSON-able values."""
        return {
            "overrides": self.overrides,
            "key": self.key,
            "policy": self.policy,
            "parameters": self.parameters,
            "rho": self.rho,
            "seed": self.config.seed,
        }


class Settings:
    """Makes settings out of overrides of one base configuration."""

    def __init__(self, config: Config, begin: Begin) -> None:
        """``begin(config)`` gives a run's horizon; asked once for all configurations that differ only in
        policies and in how they optimize.
        """
        self.config = config
        self._begin = begin
        self._known: dict[str, Horizon] = {}

    def make(self, overrides: Mapping[str, Any]) -> Setting:
        """The setting that ``overrides`` make.

        Raises:
            ConfigError: a key, a value, the policy or its parameters are not valid.
        """
        config = with_overrides(self.config, overrides)
        policy = make_policy(config.freezing.policy, **config.freezing.parameters)
        given = {
            name: value for name, value in policy.parameters().items() if name in config.freezing.parameters
        }
        return Setting(dict(overrides), config, self._key(config, policy), policy.name, given)

    def _key(self, config: Config, policy: Policy) -> str:
        shape = identity(resolved(config))
        freezing = {key: shape.pop(key) for key in list(shape) if key.startswith("freezing.")}
        return key_of({**shape, "freezing": self._freezing(config, policy, freezing)})

    def _freezing(self, config: Config, policy: Policy, shape: dict[str, Any]) -> Any:
        """The policy's timeline, or its name and parameters where the timeline is only known while training;
        and what else of ``shape``, the identity's keys of freezing, matters to it.
        """
        interval = [shape.pop(f"freezing.interval.{key}") for key in ("unit", "every")]
        rest = [interval, *(shape.pop(key) for key in _that_matter("thawed"))]
        executed = [shape.pop(key) for key in _that_matter("frozen")]
        shape.pop("freezing.policy")
        own = FreezingConfig.model_fields
        other = {key: value for key, value in shape.items() if key.split(".")[1] in own}
        tree = to_dict(config)
        training = {key: tree["training"][key] for key in ("epochs", "batch_size", "accumulation")}
        asked = json.dumps([tree["data"], tree["detector"], training, interval], sort_keys=True)
        if asked not in self._known:
            self._known[asked] = self._begin(config)
        horizon = self._known[asked].model_copy(update={"seed": config.seed})
        policy.check(horizon)
        if policy.needs_signals:
            return [policy.name, policy.parameters(), rest, executed, other]
        # [prefix, factors, steps], not two alike in a row: blocks of another length may come to the same
        timeline: list[Any] = []
        for block, decision in enumerate(policy.timeline(horizon)):
            factors = decision.lr_factors
            if factors is not None and set(factors) == {1.0}:
                factors = None
            held = [max(decision.num_frozen, horizon.always_frozen), factors]
            if timeline and timeline[-1][:2] == held:
                timeline[-1][2] += horizon.steps(block)
            else:
                timeline.append([*held, horizon.steps(block)])
        prefixes = [held[0] for held in timeline]
        thaws = any(now < before for before, now in itertools.pairwise(prefixes))
        return [timeline, rest if thaws else None, executed if max(prefixes) > 0 else None, other]


def _that_matter(where: str) -> list[str]:
    """Keys of freezing whose roles say that they matter where a stage is "frozen" or "thawed"."""
    fields = FreezingConfig.model_fields
    return [f"freezing.{name}" for name, field in fields.items() if role_of(field).matters == where]
