"""The settings that ``search.max_compute_ratio`` leaves out."""

from __future__ import annotations

import math
from collections.abc import Callable

from dbf_ray.config import Config
from dbf_ray.search.cost import Costs
from dbf_ray.search.settings import Setting
from dbf_ray.search.spaces import DrawError, NotAllowedError

TOLERANCE = 1e-9  # relative: a ceiling that is met exactly must not fail by rounding


class Ceiling:
    """Leaves out settings whose compute_ratio is above ``search.max_compute_ratio``: called with each."""

    def __init__(self, most: float, costs: Costs) -> None:
        self._most, self._costs = most, costs
        self._least = math.inf

    def __call__(self, setting: Setting) -> None:
        """Raise if it is left out.

        Raises:
            NotAllowedError: it costs more.
            DrawError: what it costs is known only afterwards.
        """
        found = self._costs.known_as("compute_ratio", setting)
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


def ceiling(config: Config, costs: Costs) -> Callable[[Setting], None]:
    """What leaves out settings that ``config.search`` does not want."""
    most = config.search.max_compute_ratio
    return (lambda setting: None) if most is None else Ceiling(most, costs)
