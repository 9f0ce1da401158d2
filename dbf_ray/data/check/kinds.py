"""The kinds of problems that a check finds, and how bad each is."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]


class Kind(NamedTuple):
    """How bad a kind of problem is, what it means, and whether a training on the data refuses it: it takes
    what is only suspicious, and what it cannot see without all pixels.
    """

    severity: Severity
    meaning: str
    refused: bool = False


KINDS: dict[str, Kind] = {
    "broken_split": Kind("error", "a split cannot be read at all", True),
    "missing_image": Kind("error", "labels or a list name an image that is not there", True),
    "missing_labels": Kind("error", "an image has no label file", True),
    "misplaced_labels": Kind("error", "a label file lies in another folder than its image", True),
    "unread_image": Kind("error", "an image is of a type that is not read", True),
    "duplicate_name": Kind("error", "two images share one name, or two label files", True),
    "unknown_image": Kind("error", "an object belongs to no image", True),
    "broken_image": Kind("error", "an image cannot be decoded", True),
    "syntax": Kind("error", "a label file or one of its lines cannot be read", True),
    "coordinate": Kind("error", "a coordinate is no usable number", True),
    "unknown_class": Kind("error", "an object's class is not one of the data set's", True),
    "misspelled_class": Kind("error", "an object's class looks like a slip"),
    "degenerate": Kind("error", "an object's polygon has no area", True),
    "outside": Kind("error", "an object is not on the image, or for the most part not"),
    "duplicate_object": Kind("error", "an object is labelled twice"),
    "no_objects": Kind("error", "a split in which no image has an object", True),
    "leak": Kind("error", "two splits show the same image"),
    "orphan_labels": Kind("warning", "a label file has no image"),
    "left_out": Kind("warning", "images that are not looked at"),
    "duplicate_image": Kind("warning", "a split holds the same image twice"),
    "blank_image": Kind("warning", "an image is of one colour throughout"),
    "self_crossing": Kind("warning", "the sides of an object's polygon cross"),
    "ambiguous_class": Kind("warning", "a number behind a class may be its flag or part of its name"),
    "rare_class": Kind("warning", "a class that few objects have, perhaps a slip"),
    "nothing_counts": Kind("warning", "a split whose objects are all difficult: nothing can be measured"),
    "tiny": Kind("warning", "an object is less than two pixels wide"),
}


def is_refused(kind: str) -> bool:
    """Whether a training refuses data with such a problem; what the table does not know it does."""
    return KINDS[kind].refused if kind in KINDS else True


def is_only_told(kind: str) -> bool:
    """Whether it is an error that a training goes on with."""
    return severity(kind) == "error" and not is_refused(kind)


def severity(kind: str) -> Severity:
    """How bad a kind of problem is; what a reader finds and the table does not know is an error."""
    return KINDS[kind].severity if kind in KINDS else "error"
