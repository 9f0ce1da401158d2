"""Reader of COCO's format: one JSON file a split, with ``images``, ``annotations`` and ``categories``.

What an annotation means is in :mod:`.coco_objects`; where the file of a split may lie, and where its images,
in :mod:`.coco_files`. Categories that are classes differ in their names. Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbf_ray.data.class_lists import one_word
from dbf_ray.data.readers.base import Item, Labels, Listing, Problem
from dbf_ray.data.readers.coco_files import (
    find_images,
    find_json,
    folder_of,
    image_folders,
    is_undivided,
    read_json,
    split_files,
)
from dbf_ray.data.readers.coco_objects import Annotation, is_id, is_true, parse_annotation
from dbf_ray.data.readers.dota import has_label_folder
from dbf_ray.errors import DataError
from dbf_ray.values import is_text

PLACEHOLDER = (
    "none"  # supercategory of a category that Roboflow adds, which groups the others and has no objects
)


class CocoReader:
    """COCO's instance annotations, and what Roboflow, CVAT and Label Studio export in their format.

    The record of an item is the image's annotations, and the names of categories by id.
    """

    layout = (
        "annotations/train.json or annotations/instances_train.json (or train.json, or "
        "train/_annotations.coco.json) and its images"
    )
    classes: Sequence[str] | None = None

    def recognises(self, root: Path) -> bool:
        """See :class:`.Reader`; DOTA's folder of labels beside images/ wins."""
        return not has_label_folder(root) and bool(split_files(root))

    def splits(self, root: Path) -> list[str]:
        """See :class:`.Reader`; a single file at the top that is not named for a split is all of the data."""
        return [] if is_undivided(root) else list(split_files(root))

    def class_names(self, root: Path) -> list[str] | None:
        """See :class:`.Reader`; by id, of the split "train" where there is one, else of the first."""
        files = split_files(root)
        if not files:
            return None
        file = next(
            (file for name, file in files.items() if name.startswith("train")), next(iter(files.values()))
        )
        content = read_json(file)
        names = _names(content, file, [])
        order = sorted(_classes(content, names), key=lambda key: (isinstance(key, str), key))
        return list(dict.fromkeys(names[key] for key in order)) or None

    def listing(self, root: Path, split: str) -> Listing:
        """See :class:`.Reader`; a file without ``annotations`` is a test set."""
        file = find_json(root, split, self.layout)
        content = read_json(file)
        problems: list[Problem] = []
        names = _names(content, file, problems)
        problems += _same_names(content, file, names)
        folders = image_folders(root, split, file)
        images = find_images(content, file, folders, problems)
        if not images and not problems:
            raise DataError(f"{file}: must list at least one image, got none; give another file or split")
        if content.get("annotations") is None:
            return Listing(
                [
                    Item(image, None, folder=folder_of(image, folders))
                    for image in images.values()
                    if image is not None
                ],
                problems,
                file,
            )
        records = _by_image(content, file, set(images), problems)
        found = [
            Item(image, file, (records.get(key, []), names), folder_of(image, folders))
            for key, image in images.items()
            if image is not None
        ]
        return Listing(found, problems)

    def read(self, item: Item) -> Labels:
        """See :class:`.Reader`; crowds are no single objects and are left out."""
        labels = Labels()
        if item.labels is None:
            return labels
        annotations, names = item.record
        for annotation in annotations:
            if is_true(annotation.get("iscrowd")):
                continue
            found = parse_annotation(annotation, item.labels, names)
            if isinstance(found, Problem):
                labels.problems.append(found)
            else:
                labels.objects.append(found)
        return labels


def _names(content: dict[str, Any], file: Path, problems: list[Problem]) -> dict[Any, str]:
    """Names of categories by id, blanks as hyphens."""
    names: dict[Any, str] = {}
    for category in content.get("categories") or []:
        key, name = (category.get("id"), category.get("name")) if isinstance(category, dict) else (None, None)
        name = one_word(name) if isinstance(name, str) and is_text(one_word(name)) else ""
        if not is_id(key) or not name or key in names:
            message = (
                "categories must have an id of their own and a name, which is text, got "
                f"{reprlib.repr(category)}; correct it"
            )
            problems.append(Problem("syntax", file, message))
        else:
            names[key] = name
    return names


def _classes(content: dict[str, Any], names: dict[Any, str]) -> list[Any]:
    """Ids of the categories that are classes: all but a placeholder that no object has."""
    used = {
        annotation.get("category_id")
        for annotation in content.get("annotations") or []
        if _has_id(annotation, "category_id")
    }
    categories = [category for category in content.get("categories") or [] if _has_id(category, "id")]
    placeholders = {category["id"] for category in categories if category.get("supercategory") == PLACEHOLDER}
    groups = {
        one_word(group) for category in categories if isinstance(group := category.get("supercategory"), str)
    }
    return [
        key for key, name in names.items() if key in used or key not in placeholders or name not in groups
    ]


def _same_names(content: dict[str, Any], file: Path, names: dict[Any, str]) -> list[Problem]:
    """A problem for each class that has an earlier one's name."""
    first: dict[str, Any] = {}
    problems = []
    for key in _classes(content, names):
        if (other := first.setdefault(names[key], key)) is not key:
            message = (
                f"categories must differ in their names, got {names[key]!r} for {reprlib.repr(other)} and "
                f"{reprlib.repr(key)}; rename one, or make them one category"
            )
            problems.append(Problem("syntax", file, message))
    return problems


def _by_image(
    content: dict[str, Any], file: Path, images: set[Any], problems: list[Problem]
) -> dict[Any, list[Annotation]]:
    """Annotations by image id."""
    records: dict[Any, list[Annotation]] = {}
    for annotation in content["annotations"]:
        if not isinstance(annotation, dict):
            problems.append(
                Problem(
                    "syntax",
                    file,
                    f"annotations must be mappings, got {reprlib.repr(annotation)}; correct it",
                )
            )
        elif is_id(key := annotation.get("image_id")) and key in images:
            records.setdefault(key, []).append(annotation)
        else:
            rule = (
                f"annotation {reprlib.repr(annotation.get('id'))}: image_id must be the id of one of images"
            )
            problems.append(
                Problem(
                    "unknown_image", file, f"{rule}, got {reprlib.repr(key)}; correct it or add the image"
                )
            )
    return records


def _has_id(entry: Any, key: str) -> bool:
    return isinstance(entry, dict) and is_id(entry.get(key))
