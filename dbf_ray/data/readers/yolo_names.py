"""Names of the classes of a folder in YOLO's format: key ``names`` of a YAML file, a list or a mapping from
index to name. They are text as it is written: ``yes`` and ``01``, which YAML takes for true and 1.
"""

from __future__ import annotations

import os
import reprlib
from pathlib import Path
from typing import Any

import yaml

from dbf_ray.data.class_lists import one_word
from dbf_ray.data.images.folders import is_passed_over
from dbf_ray.data.readers.base import Problem, find_files, quoted, read_text
from dbf_ray.single_keys import RepeatedKey, load_yaml
from dbf_ray.values import is_text

YAML_FILES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
KEY_POINTS = (
    "labels must be oriented boxes, kpt_shape says that they are key points, whose lines may look alike; "
    "export oriented boxes, or remove kpt_shape"
)
CLASSES_FILE = "classes.txt"  # one name a line, as Label Studio and labelImg write it


def read_names(root: Path) -> dict[int, str] | Problem | None:
    """Names by index in order of the index, blanks as hyphens; None where there is no file of names; or what
    is wrong with it.

    The file is data.yaml or dataset.yaml, else the only YAML file of the folder, else classes.txt.
    """
    file = names_file(root)
    if file is None:
        return None
    text = read_text(file, "files with names of classes")
    if isinstance(text, Problem):
        return text
    if file.name.lower() == CLASSES_FILE:
        return _checked(dict(enumerate(text.rstrip().splitlines())), file)
    try:
        content = load_yaml(text, lambda path: path[:1] == ("names",))
        names = content.get("names") if isinstance(content, dict) else None
        if names is None:
            return None
        if content.get("kpt_shape") is not None:
            return Problem("syntax", file, KEY_POINTS)
        checked = _checked(dict(enumerate(names)) if isinstance(names, list) else names, file)
        return checked if isinstance(checked, Problem) else _counted(checked, content.get("nc"), file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        wrong = f"{file.name} must be YAML, got: {quoted(reason)}; correct it"
        message = reason if isinstance(error, RepeatedKey) else wrong
        return Problem("syntax", file, message, None if mark is None else mark.line + 1)
    except (
        ValueError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:  # from values that are not what their tags say
        return Problem("syntax", file, f"{file.name} must be YAML, got: {quoted(str(error))}; correct it")


def names_file(root: Path) -> Path | None:
    """The file of a folder that names its classes."""
    for name in YAML_FILES:
        if found := find_files(root / Path(name).stem, (Path(name).suffix,)):
            return found[0]
    others = sorted(
        file
        for file in (root.iterdir() if os.path.isdir(root) else ())
        if file.suffix.lower() in (".yaml", ".yml") and not is_passed_over(file.name) and os.path.isfile(file)
    )
    if len(others) == 1:
        return others[0]
    return next(
        (file for folder in (root, root / "labels") for file in find_files(folder / "classes", (".txt",))),
        None,
    )


def _counted(names: dict[int, str], count: Any, file: Path) -> dict[int, str] | Problem:
    if count is None or str(count) == str(len(names)):
        return names
    message = (
        f"nc must be the number of names, {len(names)}, got {reprlib.repr(count)}; correct it, or the names"
    )
    return Problem("syntax", file, message)


def _checked(names: Any, file: Path) -> dict[int, str] | Problem:
    rule = "names must be a list of different names, or a mapping from indices to them"
    if not isinstance(names, dict) or not names:
        return Problem("syntax", file, f"{rule}, got {reprlib.repr(names)}; correct them")
    checked: dict[int, str] = {}
    for key, value in names.items():
        # 010 is 8 in YAML and 10 in most eyes
        plain = isinstance(key, int) or (isinstance(key, str) and key.isdecimal() and str(int(key)) == key)
        index = int(key) if plain else -1
        name = one_word(value) if isinstance(value, str) and is_text(one_word(value)) else ""
        if index < 0 or not name or index in checked or name in checked.values():
            return Problem("syntax", file, f"{rule}, got {reprlib.repr({key: value})}; correct them")
        checked[index] = name
    return dict(sorted(checked.items()))
