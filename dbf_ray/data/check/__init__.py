"""A check of a data set: every problem with its place, statistics, and samples to look at.

The walk looks at each image and its labels in a process of its own (:mod:`.look`, :mod:`.walk`); what only
all of them together tell is found afterwards: classes (:mod:`.names`) and images that are there twice
(:mod:`.twins`).
"""

from dbf_ray.data.check.dataset import Report, check_dataset
from dbf_ray.data.check.kinds import KINDS, is_only_told, is_refused, severity
from dbf_ray.data.check.look import ImageRecord
from dbf_ray.data.check.samples import Sample, choose_samples
from dbf_ray.data.check.statistics import statistics

__all__ = [
    "KINDS",
    "ImageRecord",
    "Report",
    "Sample",
    "check_dataset",
    "choose_samples",
    "is_only_told",
    "is_refused",
    "severity",
    "statistics",
]
