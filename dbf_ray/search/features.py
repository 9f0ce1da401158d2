"""Settings as a sampler sees them: by when they train, whatever the policy is called, and by what else was
drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dbf_ray.config import FreezingConfig, to_dict
from dbf_ray.freezing import Horizon, make_policy
from dbf_ray.search.samplers import Candidate
from dbf_ray.search.settings import Setting, Settings
from dbf_ray.values import flat

QUARTERS = 4
LOG_FROM = 10.0  # positive numbers, the largest so many times the least, are compared by their logarithms
Quarters = tuple[float, ...] | None
CostOf = Callable[[Setting], float | None]


class Candidates:
    """Makes candidates of settings; what was drawn beside freezing is scaled by what ``known`` has of it.

    Args:
        settings: asked for the horizons.
        known: all settings whose features are to be compared.
        cost: of a setting, before it is trained; None where that is not known.
        when: what is known of settings already, by their keys (:func:`trained_per_quarter`); it grows.
    """

    def __init__(
        self,
        settings: Settings,
        known: Iterable[Setting],
        cost: CostOf,
        when: dict[str, Quarters] | None = None,
    ) -> None:
        self._settings, self._cost, self._when = settings, cost, {} if when is None else when
        self._made: dict[str, Candidate] = {}
        found = [*known]
        drawn = sorted({key for setting in found for key in setting.overrides if not _of_policy(key)})
        trees = [_flat(setting) for setting in found] if drawn else []
        self._scales = {key: _scale([tree.get(key) for tree in trees]) for key in drawn}

    def of(self, setting: Setting) -> Candidate:
        """The candidate of a setting."""
        if setting.key not in self._made:
            if setting.key not in self._when:
                horizon = self._settings.beginning(setting.config).horizon
                self._when[setting.key] = trained_per_quarter(setting, horizon)
            when = self._when[setting.key]
            features = () if when is None else (*when, *self._others(setting))
            self._made[setting.key] = Candidate(setting, self._cost(setting), features)
        return self._made[setting.key]

    def _others(self, setting: Setting) -> list[float]:
        if not self._scales:
            return []
        tree = _flat(setting)
        return [number for key, scale in self._scales.items() for number in scale(tree.get(key))]


def trained_per_quarter(setting: Setting, horizon: Horizon) -> Quarters:
    """For each quarter of the training the share of the backbone's compute that is trained, times the factor
    of its learning rate: 1 if all of it is, 0 if none. None where the policy decides while it trains.
    """
    policy = make_policy(setting.config.freezing.policy, **setting.config.freezing.parameters)
    if policy.needs_signals:
        return None
    shares, quarter = _stage_shares(horizon), horizon.all_steps / QUARTERS
    sums, begin = [0.0] * QUARTERS, 0
    for block, decision in enumerate(policy.timeline(horizon)):
        end, prefix = begin + horizon.steps(block), max(decision.num_frozen, horizon.always_frozen)
        factors = decision.lr_factors or (1.0,) * horizon.num_stages
        trained = sum(share * factor for share, factor in list(zip(shares, factors, strict=True))[prefix:])
        for place in range(QUARTERS):
            overlap = min(end, (place + 1) * quarter) - max(begin, place * quarter)
            sums[place] += trained * max(0.0, overlap) / quarter
        begin = end
    return tuple(sums)


def _stage_shares(horizon: Horizon) -> list[float]:
    """Each stage's share of what training the backbone costs more than freezing it; 0 of those that are
    always frozen.
    """
    stages, first = horizon.num_stages, horizon.always_frozen
    costs = horizon.costs or tuple(range(stages, -1, -1))
    whole = costs[first] - costs[stages]
    if whole <= 0:
        return [0.0] * stages
    return [0.0 if stage < first else (costs[stage] - costs[stage + 1]) / whole for stage in range(stages)]


def _of_policy(key: str) -> bool:
    """Whether a key says when is trained, which the timeline says better."""
    section, _, name = key.partition(".")
    fields = FreezingConfig.model_fields
    return section == "freezing" and (name.split(".")[0] not in fields or name in ("policy", "interval"))


def _flat(setting: Setting) -> Mapping[str, Any]:
    return flat(to_dict(setting.config))


def _scale(values: list[Any]) -> Callable[[Any], list[float]]:
    """Of values of one key to 0..1, or to one number for each of them where they are no numbers."""
    numbers = [float(value) for value in values if _is_number(value)]
    if len(numbers) < len(values):
        kinds = sorted({repr(value) for value in values})
        return lambda value: [float(repr(value) == kind) for kind in kinds]
    low, high = min(numbers), max(numbers)
    by_log = low > 0 and high >= LOG_FROM * low
    turned: Callable[[float], float] = math.log if by_log else float
    begin, width = turned(low), (turned(high) - turned(low)) or 1.0
    return lambda value: [(turned(float(value)) - begin) / width]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
