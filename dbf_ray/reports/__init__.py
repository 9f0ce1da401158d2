"""Arithmetic, tables and plots from records; needs neither Ray nor torch."""

from dbf_ray.reports.pareto import hypervolume, knee_point, pareto_front, staircase
from dbf_ray.reports.study import study_result, write_study

__all__ = ["hypervolume", "knee_point", "pareto_front", "staircase", "study_result", "write_study"]
