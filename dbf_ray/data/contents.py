"""What the images of a data set hold, as far as it decides whether anything can be learned or measured: their
objects' classes, and which of them evaluation counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dbf_ray.data.samples import Dataset, Subset

Flags = tuple[Sequence[int], Sequence[bool]]
"""Label, and whether it is difficult, of each object of an image."""


def flags_of(dataset: Dataset, index: int) -> Flags:
    """Labels and difficult flags of an image; it is decoded only where the data set does not tell them by
    itself, in a method ``flags``.
    """
    if isinstance(dataset, Subset):
        return flags_of(dataset.dataset, dataset.indices[index])
    if hasattr(dataset, "flags"):
        known: Flags = dataset.flags(index)
        return known
    target = dataset.load(index)[1]
    return target["labels"].tolist(), target["difficult"].tolist()


def all_flags(dataset: Dataset) -> Iterator[Flags]:
    """:func:`flags_of` of all images, in their order, each read when it is asked for."""
    return (flags_of(dataset, index) for index in range(len(dataset)))


def has_objects(dataset: Dataset) -> bool:
    """Whether any image has an object, difficult or not."""
    return any(labels for labels, _ in all_flags(dataset))


def why_nothing_counts(dataset: Dataset) -> str | None:
    """Why no object counts in an evaluation, None where one does: "none of 3 images has an object"."""
    return nothing_counts(flags for _, flags in all_flags(dataset))


def nothing_counts(images: Iterable[Sequence[bool]]) -> str | None:
    """:func:`why_nothing_counts` of images of whose objects it is known whether they are difficult."""
    count = difficult = 0
    for flags in images:
        if not all(flags):
            return None
        count, difficult = count + 1, difficult + len(flags)
    if not difficult:
        return f"none of {count} images has an object"
    return f"all {difficult} objects of {count} images are difficult, which evaluation ignores"


def classes_in(dataset: Dataset, *, counted: bool = False) -> set[int]:
    """Labels of the classes that occur; ``counted``: among objects that are not difficult."""
    return {
        label
        for labels, flags in all_flags(dataset)
        for label, difficult in zip(labels, flags, strict=True)
        if not (counted and difficult)
    }
