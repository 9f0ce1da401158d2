"""What settings cost, in units that are the same for all of a study: shares of the base configuration's full
training, whatever images, epochs, image size or backbone a setting has.

A run's own ``compute_ratio``, in its summary, is over its own full training and says what freezing saved. In
a study it would call a small training as dear as a large one, so a trial's row has the study's instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dbf_ray.config import Config, with_overrides
from dbf_ray.cost import Stretch, stretches
from dbf_ray.freezing import make_policy
from dbf_ray.search.settings import Beginning, Setting, Settings
from dbf_ray.search.states import held

RATIOS = ("compute_ratio", "seconds_ratio")


Seconds = Callable[[Config], Callable[[Stretch], float] | None]
"""Of a configuration to what gives the seconds of stretches of its training; None where nobody has timed
it.
"""


class Costs:
    """Costs of settings.

    Args:
        settings: of the study; its base is what costs are shares of.
        cost: the one by which trials are compared, ``search.cost``.
        seconds: as timed; None: ``seconds_ratio`` is not known.
    """

    def __init__(self, settings: Settings, cost: str = "compute_ratio", seconds: Seconds | None = None):
        self._settings, self._cost, self._seconds = settings, cost, seconds
        self._full: dict[str, float | None] = {}
        self._known: dict[tuple[str, str], float | None] = {}

    def known(self, setting: Setting) -> float | None:
        """A setting's cost before it is trained, in the unit of ``cost``; None where that is measured, and of
        a policy that decides while it trains.
        """
        return self.known_as(self._cost, setting)

    def known_as(self, cost: str, setting: Setting) -> float | None:
        """The same in another unit."""
        if cost not in RATIOS:
            return None
        if (cost, setting.key) not in self._known:
            self._known[cost, setting.key] = self._ahead(cost, setting)
        return self._known[cost, setting.key]

    def _ahead(self, cost: str, setting: Setting) -> float | None:
        beginning = self._settings.beginning(setting.config)
        ahead = planned(setting.config, beginning)
        return None if ahead is None else self._ratio(cost, setting.config, beginning, ahead)

    def values(self, setting: Setting, summary: Mapping[str, Any]) -> dict[str, float]:
        """What a trained setting has cost, by name, as far as it can be told. Of a policy that decided while
        it trained it comes from the steps that each number of frozen stages had.
        """
        config, parts = setting.config, spent(summary)
        beginning = self._settings.beginning(config)
        found = {cost: self.known_as(cost, setting) for cost in RATIOS}
        if parts and planned(config, beginning) is None:
            found = {cost: self._ratio(cost, config, beginning, parts) for cost in RATIOS}
        return {cost: value for cost, value in found.items() if value is not None}

    def full_share(self, setting: Setting) -> float:
        """What a full training like a setting costs, over the base's; 1 where nobody has counted."""
        if all(key == "seed" or key.startswith("freezing.") for key in setting.overrides):
            return 1.0
        full = with_overrides(setting.config, {"freezing.policy": "full"})
        beginning = self._settings.beginning(full)
        return self._ratio("compute_ratio", full, beginning, planned(full, beginning) or []) or 1.0

    def _ratio(self, cost: str, config: Config, beginning: Beginning, parts: list[Stretch]) -> float | None:
        if cost not in self._full:
            base = with_overrides(self._settings.config, {"freezing.policy": "full"})
            begun = self._settings.beginning(base)
            self._full[cost] = self._sum(cost, base, begun, planned(base, begun) or [])
        spent, full = self._sum(cost, config, beginning, parts), self._full[cost]
        return None if spent is None or full is None else spent / full

    def _sum(self, cost: str, config: Config, beginning: Beginning, parts: list[Stretch]) -> float | None:
        if cost == "compute_ratio":
            return flops(config, beginning, parts)
        timed = None if self._seconds is None else self._seconds(config)
        return None if timed is None else sum(map(timed, parts))


def flops(config: Config, beginning: Beginning, parts: list[Stretch]) -> int | float | None:
    """Nominal training FLOPs of stretches: images times those of an image; None where nobody has counted."""
    costs = beginning.horizon.costs
    if costs is None:
        return None
    return sum(part.steps * config.training.batch_size * costs[part.prefix] for part in parts)


def planned(config: Config, beginning: Beginning) -> list[Stretch] | None:
    """What a training will do; None where its policy decides while it trains."""
    horizon = beginning.horizon
    policy = make_policy(config.freezing.policy, **config.freezing.parameters)
    if policy.needs_signals:
        return None
    prefixes = [held(decision, horizon)[0] for decision in policy.timeline(horizon)]
    return stretches(prefixes, [horizon.steps(block) for block in range(len(prefixes))], beginning.hits)


def spent(summary: Mapping[str, Any]) -> list[Stretch]:
    """What a training has done, by its summary; empty where that does not say."""
    hits, misses = (summary.get(f"cache_{what}") or 0 for what in ("hits", "misses"))
    share = hits / (hits + misses) if hits else 0.0
    steps = {int(prefix): count for prefix, count in (summary.get("steps_per_prefix") or {}).items()}
    return [Stretch(prefix, count, share if prefix else 0.0) for prefix, count in steps.items()]
