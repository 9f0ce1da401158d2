"""What a setting costs in FLOPs, from its timeline alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from dbf_ray.config import Config
from dbf_ray.cost.schedule import compute_ratio
from dbf_ray.freezing import Horizon, make_policy
from dbf_ray.search.settings import Setting, Settings
from dbf_ray.search.spaces import DrawError, NotAllowedError

TOLERANCE = 1e-9  # relative: a ceiling that is met exactly must not fail by rounding


def nominal_ratio(settings: Settings) -> Callable[[Setting], float | None]:
    """Of a setting to its FLOPs over those of the base configuration's full training, images and epochs
    included; None where its policy decides while it trains.
    """
    base = settings.beginning(settings.config).horizon
    whole = _flops(settings.config, base) * base.all_steps

    def ratio(setting: Setting) -> float | None:
        config = setting.config
        policy = make_policy(config.freezing.policy, **config.freezing.parameters)
        if policy.needs_signals:
            return None
        horizon = settings.beginning(config).horizon
        prefixes = [decision.num_frozen for decision in policy.timeline(horizon)]
        steps = [horizon.steps(block) for block in range(horizon.epochs)]
        own = compute_ratio(prefixes, _costs(horizon), horizon.always_frozen, steps)
        return own * _flops(config, horizon) * horizon.all_steps / whole

    return ratio


def _costs(horizon: Horizon) -> tuple[float, ...]:
    """Where nobody has counted: a third of a stage's FLOPs are its forward pass."""
    stages = horizon.num_stages
    return horizon.costs or tuple(stages + 2.0 * left for left in range(stages, -1, -1))


def _flops(config: Config, horizon: Horizon) -> float:
    """Of a step of full training, images included."""
    images = config.training.batch_size * config.training.accumulation
    return _costs(horizon)[horizon.always_frozen] * images


class Ceiling:
    """Leaves out settings whose compute_ratio is above ``search.max_compute_ratio``: called with each."""

    def __init__(self, most: float, ratio: Callable[[Setting], float | None]) -> None:
        self._most, self._ratio = most, ratio
        self._least = math.inf

    def __call__(self, setting: Setting) -> None:
        """Raise if it is left out.

        Raises:
            NotAllowedError: it costs more.
            DrawError: what it costs is known only afterwards.
        """
        found = self._ratio(setting)
        if found is None:
            raise DrawError(
                "search.max_compute_ratio must be given for spaces whose compute_ratio is known before "
                f"training, which that of policy {setting.policy} is not; leave it out, or search other "
                "policies"
            )
        if found > self._most * (1 + TOLERANCE):
            self._least = min(self._least, found)
            least = math.ceil(self._least * 1000) / 1000
            raise NotAllowedError(
                f"search.max_compute_ratio must be at least the compute_ratio of one of its settings, of "
                f"which the cheapest that was drawn has {least:g}, got {self._most:g}; give "
                f"--max-compute-ratio {least:g} or more"
            )


def ceiling(config: Config, settings: Settings) -> Callable[[Setting], None]:
    """What leaves out settings that ``config.search`` does not want."""
    most = config.search.max_compute_ratio
    return (lambda setting: None) if most is None else Ceiling(most, nominal_ratio(settings))
