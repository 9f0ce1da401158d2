"""Search for the freezing schedule with the best trade-off of accuracy against compute: Ray Tune runs the
trials, a sampler says what is tried next, Optuna keeps the book.

Names are loaded when first used: :mod:`.samplers` and what else is pure needs no Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbf_ray.search.forecast import forecast_search, forecast_text
    from dbf_ray.search.searching import concurrency
    from dbf_ray.search.spaces import SearchSpace, load_space
    from dbf_ray.search.tuner import search

__all__ = ["SearchSpace", "concurrency", "forecast_search", "forecast_text", "load_space", "search"]

_HOMES = {
    "SearchSpace": "spaces",
    "concurrency": "searching",
    "forecast_search": "forecast",
    "forecast_text": "forecast",
    "load_space": "spaces",
    "search": "tuner",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"dbf_ray.search.{_HOMES[name]}"), name)
