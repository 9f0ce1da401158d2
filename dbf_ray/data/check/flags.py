"""Flags that may be part of a class's name: ``type 1`` in DOTA's format."""

from __future__ import annotations

from collections.abc import Sequence

from dbf_ray.data.check.look import ImageRecord
from dbf_ray.data.check.objects import label_file
from dbf_ray.data.readers import Problem
from dbf_ray.data.readers.dota import doubtful


def doubtful_flags(records: Sequence[ImageRecord]) -> list[Problem]:
    """A problem for each class that may be several, at the first of its objects; of images without a list of
    all classes.
    """
    problems = []
    doubts = doubtful(pair for record in records for pair in record.objects.doubts)
    for name, other in sorted(doubts.items()):
        message = (
            f"a class and its flag must be told apart, got {name!r} with no flag but others than 0, which "
            f"may be {other!r} without one; write a flag behind each class, or name all classes"
        )
        places = (
            (str(label_file(record.item)), line or 0, label_file(record.item))
            for record in records
            for pair, line in record.objects.doubts.items()
            if pair == (name, other)
        )
        _, line, file = min(places)
        problems.append(Problem("ambiguous_class", file, message, line or None))
    return problems
