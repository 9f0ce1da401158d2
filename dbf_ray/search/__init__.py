"""Search for the freezing schedule with the best trade-off of accuracy against compute: Ray Tune runs the
trials, Optuna draws them.
"""

from dbf_ray.search.forecast import forecast_search, forecast_text
from dbf_ray.search.searching import concurrency
from dbf_ray.search.spaces import SearchSpace, load_space
from dbf_ray.search.tuner import search

__all__ = ["SearchSpace", "concurrency", "forecast_search", "forecast_text", "load_space", "search"]
