"""What a trial would train, and when two trials would train the same.

Two settings are the same if everything that shapes the training is: the configuration without names and
places, and with a freezing policy that is known before training replaced by what it does in each epoch. So at
8 epochs step(10) and step(12) are one setting, and step(1) is full.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dbf_ray.config import Config, key_of, to_dict, with_overrides
from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Horizon, Policy, make_policy
from dbf_ray.search.states import Shaping, held, shaping, state_names


@dataclass(frozen=True)
class Beginning:
    """What is known of a run before it trains.

    Attributes:
        horizon: its blocks, their steps, stages, costs.
        origin: what it begins with beside its configuration: digests of its data and weights, versions.
        checkpoint_bytes: of one of its checkpoints, about.
        hits: of a frozen prefix and so many steps in a row with it, the expected share of images whose
            features come from the cache.
        signals: that its policy may decide by; None: all there are.
    """

    horizon: Horizon
    origin: Mapping[str, Any]
    checkpoint_bytes: int = 0
    hits: Callable[[int, int], float] = lambda prefix, steps: 0.0
    signals: Collection[str] | None = None


Begin = Callable[[Config], Beginning]


class Record(Protocol):
    """What of a study's data, or of what else its trainings are made of, has to stay the same.

    Attributes:
        notes: lines about it for the person.
    """

    @property
    def notes(self) -> Sequence[str]:
        """See the class."""

    def write(self, folder: Path) -> None:
        """Keep it in the study's folder."""


@runtime_checkable
class StudyBegin(Protocol):
    """A :data:`Begin` that knows what has to stay the same while a study goes on.

    Attributes:
        warnings: lines for the person about what it has looked at.
    """

    warnings: list[str]

    def __call__(self, config: Config) -> Beginning:
        """See :data:`Begin`."""

    def study_data(self, config: Config, folder: Path) -> Record:
        """It, as it is now; refuses if the study in ``folder`` began with another."""

    def uncovered(self) -> list[str]:
        """Warnings that cost a look at the data; to be asked once."""


@dataclass(frozen=True)
class Setting:
    """One point of a search space, as a complete configuration.

    Attributes:
        key: the same for settings that train the same.
        states: names of what it is after 0, 1, ... E epochs (:mod:`.states`).
    """

    overrides: dict[str, Any]
    config: Config
    key: str
    policy: str
    parameters: dict[str, Any]
    states: tuple[str, ...]

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
        """``begin(config)`` says how a run begins; asked once for all configurations that differ only in
        policies and in how they optimize.
        """
        self.config = config
        self._begin = begin
        self._known: dict[str, Beginning] = {}

    @property
    def begun(self) -> int:
        """How many beginnings were asked for so far; each took as long as it takes to check a run."""
        return len(self._known)

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
        beginning, shape = self.beginning(config), shaping(config)
        horizon = beginning.horizon
        missing = [] if beginning.signals is None else {*policy.needs_signals} - {*beginning.signals}
        if missing:
            raise ConfigError(
                f"policy {policy.name} decides by {', '.join(sorted(missing))}, which the training does not "
                f"report; name it in signals=[...] if it does, or search other policies"
            )
        policy.check(horizon)
        key = key_of({**shape.always, "freezing": _freezing(shape, policy, horizon)})
        names = state_names(shape, policy, horizon, config.training.epochs, beginning.origin)
        return Setting(dict(overrides), config, key, policy.name, given, names)

    def beginning(self, config: Config) -> Beginning:
        """How a run of ``config`` begins."""
        tree = to_dict(config)
        training = {key: tree["training"][key] for key in ("epochs", "batch_size", "accumulation")}
        freezing = {key: tree["freezing"][key] for key in ("interval", "cache", "cache_dtype", "cache_gb")}
        asked = json.dumps([tree["data"], tree["detector"], training, freezing], sort_keys=True)
        if (
            asked not in self._known
        ):  # of one seed, so that its data's digest does not depend on who asks first
            self._known[asked] = self._begin(config.model_copy(update={"seed": self.config.seed}))
        known = self._known[asked]
        return replace(known, horizon=known.horizon.model_copy(update={"seed": config.seed}))


def _freezing(shape: Shaping, policy: Policy, horizon: Horizon) -> Any:
    """The policy's timeline, or its name and parameters where the timeline is only known while training; and
    what else of freezing matters to it.
    """
    thawing = [horizon.block_steps, shape.thawed]
    if policy.needs_signals:
        return [policy.name, policy.parameters(), thawing, shape.frozen]
    # [prefix, factors, steps], not two alike in a row: blocks of another length may come to the same
    timeline: list[Any] = []
    for block, decision in enumerate(policy.timeline(horizon)):
        now = [*held(decision, horizon)]
        if timeline and timeline[-1][:2] == now:
            timeline[-1][2] += horizon.steps(block)
        else:
            timeline.append([*now, horizon.steps(block)])
    prefixes = [prefix for prefix, *_ in timeline]
    thaws = any(now < before for before, now in itertools.pairwise(prefixes))
    return [timeline, thawing if thaws else None, shape.frozen if max(prefixes) > 0 else None]
