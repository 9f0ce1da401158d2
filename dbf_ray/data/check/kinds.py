"""The kinds of problems that a check finds, and how bad each is."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]


class Kind(NamedTuple):
    """How bad a kind of problem is, and what it means."""

    severity: Severity
    meaning: str


KINDS: dict[str, Kind] = {
    "broken_split": Kind("error", "a split cannot be read at all"),
    "missing_image": Kind("error", "labels or a list name an image that is not there"),
    "missing_labels": Kind("error", "an image has no label file"),
    "orphan_labels": Kind("error", "a label file has no image"),
    "sub_folder": Kind("error", "images in a sub-folder, which are not looked at"),
    "duplicate_name": Kind("error", "two images share one name, and so one label file"),
    "unknown_image": Kind("error", "an object belongs to no image"),
    "broken_image": Kind("error", "an image cannot be decoded"),
    "syntax": Kind("error", "a label file or one of its lines cannot be read"),
    "coordinate": Kind("error", "a coordinate is no usable number"),
    "unknown_class": Kind("error", "an object's class is not one of the data set's"),
    "degenerate": Kind("error", "an object's polygon has no area"),
    "outside": Kind("error", "an object is not on the image, or for the most part not"),
    "duplicate_object": Kind("error", "an object is labelled twice"),
    "no_objects": Kind("error", "a split in which no image has an object"),
    "leak": Kind("error", "two splits show the same image"),
    "duplicate_image": Kind("warning", "a split holds the same image twice"),
    "blank_image": Kind("warning", "an image is of one colour throughout"),
    "self_crossing": Kind("warning", "the sides of an object's polygon cross"),
    "ambiguous_class": Kind("warning", "a number behind a class may be its flag or part of its name"),
    "rare_class": Kind("warning", "a class that few objects have, perhaps a slip"),
    "nothing_counts": Kind("warning", "a split whose objects are all difficult: nothing can be measured"),
    "tiny": Kind("warning", "an object is less than two pixels wide"),
}


def severity(kind: str) -> Severity:
    """How bad a kind of problem is; what a reader finds and the table does not know is an error."""
    return KINDS[kind].severity if kind in KINDS else "error"
