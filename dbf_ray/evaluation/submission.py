"""DOTA's Task 1 text files: one for each class, a detection a line, which its evaluation server and its
devkit read.

``Task1_CLASS.txt`` holds lines ``image score x1 y1 x2 y2 x3 y3 x4 y4``, coordinates in pixels.
https://captain-whu.github.io/DOTA/tasks.html
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from dbf_ray.errors import ConfigError, DataError
from dbf_ray.evaluation.merge import Detections
from dbf_ray.files import LONGEST_NAME, whole_file, write_text
from dbf_ray.geometry import boxes_to_corners, corners_to_boxes
from dbf_ray.geometry.windows import told_by_folders
from dbf_ray.values import plain_text

PREFIX = "Task1_"
ARCHIVE = "submission.zip"
MOST_TIMES = 100  # its own size that an archive that is read may unpack to
NEXT_STEP = "rename the class, or write other formats than dota"
FOLDER = "Task1"
"""Where the files lie in a folder of predictions."""


def write_task1(images: Mapping[str, Detections], classes: Sequence[str], folder: Path) -> list[Path]:
    """Write one file for each class, those without detections too, and all of them as ``submission.zip``,
    which DOTA's server takes.

    Files of other classes that an earlier call left there are removed.

    Returns:
        The text files.

    Raises:
        ConfigError: two classes would have the same file.
    """
    lines: dict[int, list[str]] = {label: [] for label in range(len(classes))}
    for image in sorted(images):
        found = images[image]
        corners = boxes_to_corners(found.boxes.double()).tolist()
        for label, score, points in zip(found.labels.tolist(), found.scores.tolist(), corners, strict=True):
            lines[label].append(
                " ".join([image_text(image), f"{score:.6g}", *(f"{value:.2f}" for value in points)])
            )
    files = [folder / f"{PREFIX}{name}.txt" for name in text_names(classes)]
    for label, file in enumerate(files):
        write_text(file, "".join(f"{line}\n" for line in lines[label]))
    for name in filter(_is_task1, os.listdir(folder)):
        if folder / name not in files:
            (folder / name).unlink()
    with (
        whole_file(folder / ARCHIVE) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for file in files:
            archive.write(file, file.name)
    return files


def text_names(classes: Sequence[str]) -> list[str]:
    """Class names as text files have them, where blanks separate fields and slashes folders: a dash for each,
    as in DOTA's small-vehicle.

    Raises:
        ConfigError: two classes would have the same name, or one a name that no file can have.
    """
    names = [re.sub(r"[\s/\\\x00-\x1f\x7f]+", "-", name.strip()) for name in classes]
    for rule, alike in (("blanks and slashes", names), ("capitals", [name.casefold() for name in names])):
        if twice := next((text for text, count in Counter(alike).items() if count > 1), None):
            raise ConfigError(
                f"classes must differ in more than {rule}, got {twice!r} twice in {', '.join(classes)}; "
                f"{NEXT_STEP}"
            )
    for name in names:
        if plain_text(name) != name:
            raise ConfigError(f"names of classes must be text, got {name!r}; {NEXT_STEP}")
        if (length := len(f"{PREFIX}{name}.txt".encode())) > LONGEST_NAME:
            raise ConfigError(
                f"names of files must be within {LONGEST_NAME} bytes, that of class {name[:40]}..., "
                f"{PREFIX}CLASS.txt, would have {length}; {NEXT_STEP}"
            )
    return names


def image_text(name: str) -> str:
    """An image's name as text files have it, where blanks separate fields."""
    return re.sub(r"\s+", "_", plain_text(name))


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names of images as Task 1 files have them, as DOTA's server knows them: the last part of each; all of
    each where two images, whole or in patches, are called the same in different folders.
    """
    by_path = told_by_folders(map(image_text, names)) is not None
    return {name: image_text(name if by_path else name.rpartition("/")[2]) for name in names}


def paths_note(names: Sequence[str]) -> str:
    """What is worth knowing of images that are called the same in different folders; empty where none are."""
    found = told_by_folders(names)
    if found is None:
        return ""
    return (
        "images of one name are in different folders: DOTA's Task 1 files, in which names have no folders, "
        f"will have paths ({found[0]}, {found[1]}), which DOTA's server does not know"
    )


def task1_source(source: Path) -> Path:
    """Where the files of a folder are: in it, or in its folder Task1."""
    inside = source / FOLDER
    return source if not inside.is_dir() or any(map(_is_task1, os.listdir(source))) else inside


def _is_task1(name: str) -> bool:
    return name.startswith(PREFIX) and name.lower().endswith(".txt")


def read_task1(source: Path, classes: Sequence[str] | None = None) -> tuple[dict[str, Detections], list[str]]:
    """Detections by image from a folder of Task 1 files, or a zip of them; and the class names, blanks in
    those of files as dashes. Equal lines are one detection.

    Args:
        source: folder of them, or with a folder Task1 of them; or a zip file.
        classes: in label order; None: those that the files are named by, sorted.

    Raises:
        DataError: there is no such file, a class has two or is unknown, or a line is malformed.
    """
    texts = _texts(source)
    names = sorted(texts) if classes is None else list(classes)
    places = {name: label for label, name in enumerate(text_names(names))}
    rows: dict[str, list[tuple[list[float], int]]] = {}
    for name, text in sorted(texts.items()):
        if name not in places:
            raise DataError(
                f"{source}, {PREFIX}{name}.txt: classes must be among {', '.join(names)}, got {name!r}; "
                "rename the file"
            )
        lines: dict[str, int] = {}
        for number, line in enumerate(text.splitlines(), 1):
            lines.setdefault(line.strip(), number)
        for line, number in lines.items():
            if line:
                image, values = _parse(line, f"{source}, {PREFIX}{name}.txt, line {number}")
                rows.setdefault(image, []).append((values, places[name]))
    return {image: _found(found) for image, found in rows.items()}, names


def _texts(source: Path) -> dict[str, str]:
    """Text of each file by the class in its name, as :func:`text_names` writes it."""
    source = task1_source(source)
    try:
        if source.is_dir():
            pairs: Iterable[tuple[str, bytes]] = [
                (file.name, file.read_bytes()) for file in sorted(source.iterdir()) if _is_task1(file.name)
            ]
        else:
            with zipfile.ZipFile(source) as archive:
                entries = [entry for entry in archive.infolist() if _is_task1(Path(entry.filename).name)]
                _refuse_packed(source, sum(entry.file_size for entry in entries))
                pairs = [(Path(entry.filename).name, archive.read(entry)) for entry in entries]
        found = [
            (text_names([name[len(PREFIX) : -4]])[0], content.decode("utf-8-sig")) for name, content in pairs
        ]
    # RuntimeError: a password, or a compression that is not known
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, RuntimeError) as error:
        raise DataError(
            f"{source} must be a folder or a zip of text files {PREFIX}CLASS.txt, it cannot be read: "
            f"{error}; check it"
        ) from error
    texts = dict(found)
    if len(texts) < len(found):
        twice, _ = Counter(name for name, _ in found).most_common(1)[0]
        raise DataError(
            f"{source} must hold one file {PREFIX}CLASS.txt for each class, got two for {twice!r}; remove one"
        )
    if not texts:
        raise DataError(
            f"{source} must hold text files {PREFIX}CLASS.txt, found none; give the folder that dbf predict "
            "wrote them to"
        )
    return texts


def _refuse_packed(source: Path, unpacked: int) -> None:
    """Refuse an archive that was made to fill memory: text of detections packs to a tenth or so."""
    size = source.stat().st_size
    if unpacked > MOST_TIMES * size:
        raise DataError(
            f"{source} must unpack to at most {MOST_TIMES} times its {size} bytes, it would to {unpacked}; "
            "give the folder of its text files"
        )


def _parse(line: str, place: str) -> tuple[str, list[float]]:
    fields = line.split()
    try:
        values = [float(field) for field in fields[1:]]
    except ValueError:
        values = []
    if len(values) != 9 or not all(map(math.isfinite, values)):
        raise DataError(
            f"{place}: a line must be image score x1 y1 x2 y2 x3 y3 x4 y4 in finite numbers, got "
            f"{line.strip()!r}; correct it"
        )
    return fields[0], values


def _found(rows: Sequence[tuple[list[float], int]]) -> Detections:
    values = torch.tensor([row for row, _ in rows], dtype=torch.float64)
    return Detections(
        corners_to_boxes(values[:, 1:]).float(),
        values[:, 0].float(),
        torch.tensor([label for _, label in rows]),
    )
