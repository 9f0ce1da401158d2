"""Images that are there twice: exactly within a split, and across splits also where they only show the
same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dbf_ray.data.check.look import ImageRecord, Pixels
from dbf_ray.data.check.near_duplicates import Pair, near_duplicates
from dbf_ray.data.readers import Problem
from dbf_ray.geometry.windows import parse_patch_name

ORDER = ("train", "val", "test")  # of two splits the later one leaks
NEXT_STEP = "remove it from one of them"

Shown = tuple[ImageRecord, Pixels]


def twins(splits: Mapping[str, Sequence[ImageRecord]]) -> list[Problem]:
    """Duplicates within each split, and for each image of a later split the one of an earlier split that
    shows the same.

    Images of one colour are compared with none. Splits whose names hold one another ("trainval" and "train")
    are not told apart.
    """
    order = sorted(
        splits,
        key=lambda name: (
            next((place for place, start in enumerate(ORDER) if name.startswith(start)), len(ORDER)),
            name,
        ),
    )
    problems = [problem for name in order for problem in _within(splits[name])]
    for first, second in itertools.combinations(order, 2):
        if are_apart(first, second):
            problems += _scenes(first, splits[first], second, splits[second])
            problems += _across(first, splits[first], second, splits[second])
    return problems


def are_apart(split: str, other: str) -> bool:
    """Whether two splits are to share no images; "trainval" holds "train"."""
    return split not in other and other not in split


def _within(records: Sequence[ImageRecord]) -> Iterator[Problem]:
    seen: dict[bytes, ImageRecord] = {}
    for record, pixels in _shown(records):
        first = seen.setdefault(pixels.digest, record)
        if first.item.image != record.item.image:
            message = f"a split should hold an image once, {first.item.image} has the same pixels; remove one"
            yield Problem("duplicate_image", record.item.image, message)


def _scenes(
    first: str, records: Sequence[ImageRecord], second: str, others: Sequence[ImageRecord]
) -> Iterator[Problem]:
    """Patches, told by their names, of an image that patches of the other split are of too; the first of each
    image.
    """
    scenes, seen = {scene for record in records if (scene := _scene(record)) is not None}, set()
    for record in others:
        scene = _scene(record)
        if scene in scenes and scene not in seen:
            seen.add(scene)
            message = (
                f"{first} and {second} must not show the same, both have patches of {scene}; {NEXT_STEP}, "
                "with all patches of that image"
            )
            yield Problem("leak", record.item.image, message)


def _scene(record: ImageRecord) -> str | None:
    """The image that a patch is of, None of what is no patch."""
    name = record.item.name
    scene = parse_patch_name(name).image
    return scene if scene != name else None


def _across(
    first: str, records: Sequence[ImageRecord], second: str, others: Sequence[ImageRecord]
) -> Iterator[Problem]:
    """The same file, then the same pixels, and among the rest the same picture."""
    rule = f"{first} and {second} must not show the same"
    files = {record.item.image for record in records}
    shown = _shown(records)
    digests = {pixels.digest: record for record, pixels in reversed(shown)}
    rest: list[Shown] = []
    for record in others:
        if record.item.image in files:
            yield Problem("leak", record.item.image, f"{rule}, this image is in both; {NEXT_STEP}")
    for record, pixels in _shown([record for record in others if record.item.image not in files]):
        if pixels.digest in digests:
            message = f"{rule}, {digests[pixels.digest].item.image} has the same pixels; {NEXT_STEP}"
            yield Problem("leak", record.item.image, message)
        else:
            rest.append((record, pixels))
    for pair in _pairs(shown, rest):
        how = f"{pair.symmetry}, " if pair.symmetry else ""
        same, record = shown[pair.first][0], rest[pair.second][0]
        message = (
            f"{rule}, {same.item.image} is nearly this image ({how}correlation {pair.correlation:.3f}); "
            f"{NEXT_STEP}"
        )
        yield Problem("leak", record.item.image, message)


def _pairs(shown: Sequence[Shown], rest: Sequence[Shown]) -> list[Pair]:
    """For each of the rest that shows the same as others, the most similar of them."""
    if not shown or not rest:
        return []
    best: dict[int, Pair] = {}
    for pair in near_duplicates(
        *(np.stack([pixels.thumbnail for _, pixels in part]) for part in (shown, rest))
    ):
        if pair.second not in best or pair.correlation > best[pair.second].correlation:
            best[pair.second] = pair
    return [best[index] for index in sorted(best)]


def _shown(records: Sequence[ImageRecord]) -> list[Shown]:
    """Those that can be compared."""
    return [
        (record, record.pixels) for record in records if record.pixels is not None and not record.pixels.blank
    ]
