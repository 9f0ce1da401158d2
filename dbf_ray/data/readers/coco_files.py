"""Where the files of COCO's format lie: the JSON file of a split, and the images that it lists.

=====================================  ==========================================================
annotations/train.json                 also instances_train.json or, as COCO has it, instances_train2017.json
train.json                             beside images/
train/_annotations.coco.json           as Roboflow exports; or another single JSON file in that folder
result.json                            a single file at the top that is named for no split is all of the
                                       data, as Label Studio exports
=====================================  ==========================================================
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Iterator, Sequence
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from dbf_ray.data.images.folders import FileIndex, is_passed_over, tails
from dbf_ray.data.readers.base import (
    USUAL_SPLITS,
    Problem,
    aliases,
    find_files,
    no_split,
    read_text,
    sub_folders,
)
from dbf_ray.data.readers.coco_objects import is_id
from dbf_ray.errors import DataError
from dbf_ray.single_keys import load_json

ROBOFLOW = "_annotations.coco"  # name of the JSON file
OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_")  # COCO's own files beside instances_
HEAD_BYTES = 1 << 16  # in which a file shows that it is COCO's
MOST_FILES = 32  # in a folder; where there are more, each is about one image


def split_files(root: Path) -> dict[str, Path]:
    """The JSON file of each split that a folder holds, by the split's name. Only the heads of JSON files are
    read.
    """
    found: dict[str, Path] = {}
    for folder in (root / "annotations", root):
        for file in _json_files(folder):
            found.setdefault(_split_name(file), file)
    for folder in sub_folders(root):
        inside = _inside(folder) if folder.name in USUAL_SPLITS else _roboflow(folder)
        if inside is not None and os.path.isfile(inside):
            found.setdefault(folder.name, inside)
    return found


def is_undivided(root: Path) -> bool:
    """Whether a folder's only file is at its top and named for no split."""
    files = split_files(root)
    return len(files) == 1 and all(
        file.parent == root and name.rstrip("0123456789") not in USUAL_SPLITS for name, file in files.items()
    )


def find_json(root: Path, split: str, layout: str) -> Path:
    """The JSON file of a split.

    Raises:
        DataError: there is none, or there are several.
    """
    for name in aliases(split):
        for stem in (root / "annotations" / name, root / "annotations" / f"instances_{name}"):
            if files := find_files(stem, (".json",)):
                return files[0]
        # instances_train2017, and not instances_trainval
        longer = re.compile(rf"instances_{re.escape(name)}[^A-Za-z].*")
        matches = [file for file in _json_files(root / "annotations") if longer.fullmatch(file.stem)]
        if len(matches) > 1:
            names = ", ".join(_split_name(file) for file in matches)
            raise DataError(
                f"{root / 'annotations'}: one file must be that of {name!r}, {len(matches)} are; name one of "
                f"{names} as the split"
            )
        inside = _inside(root / name)
        for found in (*matches, *find_files(root / name, (".json",)), *([] if inside is None else [inside])):
            if os.path.isfile(found):
                return found
    if is_undivided(root):
        return next(iter(split_files(root).values()))
    raise no_split(root, split, list(split_files(root)), layout)


def read_json(file: Path) -> dict[str, Any]:
    """The content of a file of COCO's format: a mapping whose ``images``, ``annotations`` and ``categories``
    are lists or missing.

    Raises:
        DataError: it is not.
    """
    text = read_text(file)
    if isinstance(text, Problem):
        raise text.error()
    try:
        content = load_json(text)
    except JSONDecodeError as error:
        message = (
            f"label files must be JSON, got: {error.msg} at column {error.colno}; correct or export the file "
            "again"
        )
        raise Problem("syntax", file, message, error.lineno).error() from None
    # a number of thousands of digits, brackets without end, or a key that is there twice
    except (ValueError, RecursionError) as error:
        raise Problem(
            "syntax", file, f"label files must be JSON, got: {error}; correct or export the file again"
        ).error() from None
    parts = (
        {key: content.get(key) for key in ("images", "annotations", "categories")}
        if isinstance(content, dict)
        else {}
    )
    if wrong := [key for key, value in parts.items() if not isinstance(value, list | None)]:
        raise DataError(
            f"{file}: {wrong[0]} must be a list, got {reprlib.repr(parts[wrong[0]])}; correct or export the "
            "file again"
        )
    if not isinstance(content, dict) or content.get("images") is None:
        raise DataError(
            f"{file}: must be a mapping with images, annotations and categories, got "
            f"{reprlib.repr(content)}; give a file of COCO's format"
        )
    return content


def image_folders(root: Path, split: str, file: Path) -> list[Path]:
    """Folders that the images of a split may be in, those named for it first, then beside its file and at the
    top.
    """
    names = dict.fromkeys([*aliases(split), _split_name(file)])
    named = [root / part for name in names for part in (f"images/{name}", name, f"{name}/images")]
    longer = [
        folder
        for parent in (root, root / "images")
        for folder in sub_folders(parent)
        if folder.name.startswith(split)
    ]
    return [
        folder
        for folder in dict.fromkeys([*named, file.parent, root / "images", root, *longer])
        if os.path.isdir(folder)
    ]


def find_images(
    content: dict[str, Any], file: Path, folders: list[Path], problems: list[Problem]
) -> dict[Any, Path | None]:
    """The file of each image by its id, None where it is missing."""
    images: dict[Any, Path | None] = {}
    files: set[Path] = set()
    indices: dict[Path, FileIndex] = {}
    for entry in content["images"]:
        key, name = (entry.get("id"), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if not is_id(key) or not isinstance(name, str) or not name:
            message = f"images must have an id and a file_name, got {reprlib.repr(entry)}; correct it"
            problems.append(Problem("syntax", file, message))
            continue
        found = next((path for path in _candidates(name, folders) if os.path.isfile(path)), None)
        found = found or _spelled_otherwise(name, folders, indices)
        if key in images or found in files:
            message = (
                f"images must have an id and a file of their own, got {reprlib.repr(key)} or "
                f"{reprlib.repr(name)} twice; remove one"
            )
            problems.append(Problem("duplicate_name", file, message))
            continue
        images[key] = found
        if found is not None:
            files.add(found)
            continue
        shown = f"{reprlib.repr(name)}, not in {', '.join(str(folder) for folder in folders)}"
        step = "add the image or remove it from the list"
        if (other := _of_another_type(name, indices)) is not None:
            shown, step = f"{reprlib.repr(name)}, but {other}", "convert it, or name it so in the list"
        message = f"image {reprlib.repr(key)}: listed images must be there, got {shown}; {step}"
        problems.append(Problem("missing_image", file, message))
    return images


def folder_of(image: Path, folders: Sequence[Path]) -> Path:
    """The innermost of the folders that an image is in or below; that of all files for one that is
    elsewhere.
    """
    holders = [folder for folder in folders if image.is_relative_to(folder)]
    return max(holders, key=lambda folder: len(folder.parts), default=Path(image.anchor))


def _candidates(name: str, folders: list[Path]) -> Iterator[Path]:
    """As written, with any system's separators; then by its last parts, for lists that were written
    elsewhere.
    """
    for part in dict.fromkeys([name, name.replace("\\", "/"), *tails(name)]):
        yield from (_at(part, folder, folders) for folder in folders)


def _at(part: str, folder: Path, folders: list[Path]) -> Path:
    """A path from a folder, without ``..``: from the innermost folder that holds the file, or else from the
    top.
    """
    if ".." not in part.split("/") and not os.path.isabs(part):
        return folder / part
    file = os.path.abspath(folder / part)
    places = {os.path.abspath(holder): holder for holder in folders}
    for place in sorted(places, key=len, reverse=True):
        if file.startswith(os.path.join(place, "")):
            return places[place] / os.path.relpath(file, place)
    return Path(file)


def _spelled_otherwise(name: str, folders: list[Path], indices: dict[Path, FileIndex]) -> Path | None:
    """The only file that is called so but for capitals, as in lists from systems that do not tell them
    apart.
    """
    for tail in tails(name):
        for folder in folders:
            index = indices.get(folder) or indices.setdefault(folder, FileIndex(folder))
            stem, suffix = os.path.splitext(tail)
            found = [file for file in index.find(stem) if file.suffix.lower() == suffix.lower()]
            if len(found) == 1:
                return found[0]
    return None


def _of_another_type(name: str, indices: dict[Path, FileIndex]) -> Path | None:
    """An image that is called so but for its suffix, of a listed one that was converted."""
    stems = [os.path.splitext(tail)[0] for tail in tails(name)]
    return next((file for stem in stems for index in indices.values() for file in index.find(stem)), None)


def _split_name(file: Path) -> str:
    return file.stem.removeprefix("instances_")


def _inside(folder: Path) -> Path | None:
    """The JSON file within the folder of a split."""
    if (found := _roboflow(folder)) is not None:
        return found
    files = _json_files(folder)
    return files[0] if len(files) == 1 else None


def _roboflow(folder: Path) -> Path | None:
    return next(iter(find_files(folder / ROBOFLOW, (".json",))), None)


def _json_files(folder: Path) -> list[Path]:
    """The JSON files of a folder that look like COCO's, by what is near their beginning."""
    try:
        names = sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.name.lower().endswith(".json")
            and not is_passed_over(entry.name)
            and not entry.name.startswith(OTHER_TASKS)
        )
    except OSError:
        return []
    files = [folder / name for name in names]
    return [file for file in files if _is_coco(file)] if len(files) <= MOST_FILES else []


def _is_coco(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return False
    return re.search(rb'"(images|annotations)"\s*:\s*\[', head) is not None
