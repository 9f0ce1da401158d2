"""Splits from which nothing can be learned or on which nothing can be measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dbf_ray.data.check.look import ImageRecord
from dbf_ray.data.check.names import is_train
from dbf_ray.data.readers import Problem


def empty_split(place: Path, split: str, records: Sequence[ImageRecord]) -> Iterator[Problem]:
    """The problem of a split with labels, at ``place``, if no image of it has an object, or none that counts.

    Labels that cannot be read are told by themselves, and a split that is called test may hold images alone.
    """
    unread = any(
        problem.file != record.item.image or problem.kind == "broken_image"
        for record in records
        for problem in record.problems
    )
    objects = sum(len(record.objects) for record in records)
    if unread or not records:
        return
    if not objects and not split.startswith("test"):
        message = (
            f"a split must have objects, none of {len(records)} images has one; correct names and content of "
            "the label files, or leave the split out (a training takes it only if told to)"
        )
        yield Problem("no_objects", place, message)
    elif objects and not is_train(split) and all(record.objects.difficult.all() for record in records):
        message = (
            f"what is evaluated on must have objects that are not difficult, all {objects} objects of "
            f"{len(records)} images are, so that map50 would be none; flag those alone that are"
        )
        yield Problem("nothing_counts", place, message)
