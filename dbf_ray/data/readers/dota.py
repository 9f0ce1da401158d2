"""Reader of DOTA's text format: a folder images/ and a folder labelTxt/ with one text file an image.

A label file may begin with header lines (``imagesource:...``, ``gsd:...``); each further line is one object::

    x1 y1 x2 y2 x3 y3 x4 y4 class [difficult]

with the corners of a quadrilateral in pixels, separated by blanks or commas. ``difficult`` is 0 or 1, 0 where
it is missing; the splitters of the DOTA devkit and of MMRotate write 2 for an object that the patch cuts,
which counts as difficult. An empty file is an image without objects. Format:
https://captain-whu.github.io/DOTA/dataset.html.

A class whose name has blanks is one to a reader that knows it (:meth:`DotaReader.knowing`), or where commas
or tabs separate the fields: ``type 1`` is else the class ``type`` with the flag 1. If ``type`` is a class
too, it is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dbf_ray.data.class_lists import CLASS_LISTS, one_word
from dbf_ray.data.images.folders import holds_images
from dbf_ray.data.readers.base import (
    USUAL_SPLITS,
    Item,
    LabelledObject,
    Labels,
    Listing,
    Problem,
    aliases,
    no_split,
    parse_corners,
    quoted,
    read_text,
    sub_folders,
)
from dbf_ray.data.readers.pairs import paired
from dbf_ray.errors import DataError

HEADERS = ("imagesource:", "gsd:")
LABEL_FOLDERS = ("labelTxt", "annfiles", "labelTxt-v2.0", "labelTxt-v1.5", "labelTxt-v1.0")
"""Where labels may lie, the first that is there counts: as DOTA and its devkit name the folder, as MMRotate's
splitter does, and as downloaded.
"""
FLAGS = ("0", "1", "2")
Known = Mapping[str, bool]
"""Classes, blanks in their names as hyphens, and whether they were given with blanks."""
NOTHING: Known = {}


class DotaReader:
    """DOTA v1.0, v1.5, v2.0, and any data in their format."""

    layout = "images/ and labelTxt/, or train/ and val/ that hold them"
    classes: Sequence[str] | None = None

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known: Known = {one_word(name): len(name.split()) > 1 for name in known}

    def knowing(self, classes: Sequence[str]) -> DotaReader:
        """A reader that finds these classes in a line also where their names are written with blanks."""
        return DotaReader(classes)

    def recognises(self, root: Path) -> bool:
        """See :class:`.Reader`."""
        return _is_flat(root) or bool(self.splits(root))

    def splits(self, root: Path) -> list[str]:
        """See :class:`.Reader`."""
        if _is_flat(root):
            return splits_inside(root / "images")
        return [folder.name for folder in sub_folders(root) if os.path.isdir(folder / "images")]

    def class_names(self, root: Path) -> list[str] | None:
        """None: the format declares no classes."""
        return None

    def listing(self, root: Path, split: str) -> Listing:
        """See :class:`.Reader`; a folder without labels is a test set."""
        images, labels = split_folders(root, split)
        listing = paired(images, labels)
        if labels is None:
            listing.unlabelled = images.parent / LABEL_FOLDERS[0]
        return listing

    def read(self, item: Item) -> Labels:
        """See :class:`.Reader`."""
        return Labels() if item.labels is None else read_labels(item.labels, self._known)


def split_folders(root: Path, split: str) -> tuple[Path, Path | None]:
    """The folders of the images and labels of a split, None where there are no labels: in ROOT/SPLIT, or in
    ROOT itself where it is not divided; or images/SPLIT beside labelTxt/SPLIT.

    Raises:
        DataError: there are no such folders.
    """
    if not root.is_dir():
        raise DataError(f"the data folder must exist, {root} is not there; give an existing folder as `root`")
    if splits := splits_inside(root / "images"):
        images = next((found for name in aliases(split) if (found := root / "images" / name).is_dir()), None)
        if images is None:
            raise no_split(root, split, splits, DotaReader.layout)
        labels = label_folder(root)
        inside = None if labels is None else labels / images.name
        return images, inside if inside is not None and inside.is_dir() else labels
    folder = root if _is_flat(root) else root / split
    if not (folder / "images").is_dir():
        raise DataError(
            f"a data folder must hold images/ and labelTxt/, or {split}/ that holds them; "
            f"{folder / 'images'} is not there; give such a folder as `root`"
        )
    return folder / "images", label_folder(folder)


def splits_inside(images: Path) -> list[str]:
    """Splits that are folders within a folder of images: those with a usual name, where no image lies beside
    them.
    """
    names = [folder.name for folder in sub_folders(images) if folder.name in USUAL_SPLITS]
    return names if names and not holds_images(images) else []


def has_label_folder(root: Path) -> bool:
    """Whether a folder, or one of its sub-folders, holds labels in this format: what tells it from others
    that have images/ too.
    """
    return any(label_folder(folder) is not None for folder in (root, *sub_folders(root)))


def label_folder(folder: Path) -> Path | None:
    """The folder of a split's label files, None where there is none."""
    return next((folder / name for name in LABEL_FOLDERS if os.path.isdir(folder / name)), None)


def read_labels(file: Path, known: Known = NOTHING) -> Labels:
    """All objects of one label file; byte-order mark, CRLF, blank lines and header lines before the first
    object are skipped.
    """
    text = read_text(file)
    if isinstance(text, Problem):
        return Labels(problems=[text])
    labels = Labels()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or (not labels.objects and line.strip().lower().startswith(HEADERS)):
            continue
        found = parse_line(line, file, number, known)
        if isinstance(found, Problem):
            labels.problems.append(found)
        else:
            labels.objects.append(found)
    return labels


def parse_line(text: str, file: Path, number: int, known: Known = NOTHING) -> LabelledObject | Problem:
    """One object line, or what is wrong with it."""
    shown = quoted(text)
    apart = _separated(text)
    fields = apart or text.replace(",", " ").split()
    if len(fields) < 9:
        rule = "an object line must be x1 y1 x2 y2 x3 y3 x4 y4 class [difficult]"
        return Problem("syntax", file, f"{rule}, got {_described(len(fields))}: {shown}; correct it", number)
    corners = parse_corners(fields[:8], file, number, shown)
    if isinstance(corners, Problem):
        return corners
    found = _class_and_flag(fields[8:], {one_word(fields[8]): False} if apart else known)
    if isinstance(found, str):
        return Problem("syntax", file, f"{found}, in: {shown}", number)
    name, flag, other = found
    return LabelledObject(corners, name, flag != "0", number, other)


def _separated(text: str) -> list[str]:
    """The fields of a line that commas or tabs separate, whose class may have blanks; empty for other lines,
    and where a blank separates what may be a flag.
    """
    fields = [field.strip() for field in re.split("[,\t]", text.strip().rstrip(",\t"))]
    if len(fields) not in (9, 10) or not fields[8] or any(len(field.split()) != 1 for field in fields[:8]):
        return []
    flagged = len(fields) == 9 and len(fields[8].split()) > 1 and fields[8].split()[-1] in FLAGS
    return [] if flagged else fields


def _class_and_flag(words: Sequence[str], known: Known) -> tuple[str, str, str | None] | str:
    """Class, flag, and the class without that flag if it may be part of the name; or what is wrong with the
    words: rule, value and next step.
    """
    whole, flag = one_word(" ".join(words)), words[-1]
    name = one_word(" ".join(words[:-1]))
    flagged = len(words) > 1 and flag in FLAGS
    if len(words) == 1 or (whole in known and not (flagged and name in known)):
        return whole, "0", None
    if known.get(whole):
        return (
            f"a class and its flag must be told apart, got {' '.join(words)!r}, which may be {name!r} with "
            f"flag {flag} or {whole!r} without one; write a flag behind each class, {whole!r} 0 say"
        )
    if flagged and (len(words) == 2 or name in known):
        return name, flag, whole if name not in known else None
    if len(words) == 2:
        return (
            f"the difficult flag must be 0 or 1, or 2 for an object that is cut, got {flag!r}; correct the "
            f"line, or name the class {' '.join(words)!r} among all classes"
        )
    return (
        f"an object line must be x1 y1 x2 y2 x3 y3 x4 y4 class [difficult], got {8 + len(words)} fields; "
        f"correct it, or name the class {' '.join(words[:-1] if flagged else words)!r} among all classes"
    )


def doubtful(readings: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Classes each of whose objects has a flag that may be part of the name, ``type`` of ``type 1``, with one
    such name.

    No class is in doubt that has the flag 0 somewhere, or is in a public list.

    Args:
        readings: class of each object, and the other one that it may be.
    """
    others: dict[str, set[str]] = {}
    for name, other in readings:
        if other is not None:
            others.setdefault(name, set()).add(other)
    public = {name for names in CLASS_LISTS.values() for name in names}
    return {
        name: min(found)
        for name, found in others.items()
        if name not in public and one_word(f"{name} 0") not in found
    }


def _described(count: int) -> str:
    if count in (6, 7):
        return f"{count} fields, as boxes with an angle have (cx cy w h angle class), which are not read"
    return f"{count} fields"


def format_line(corners: tuple[float, ...], name: str, difficult: int) -> str:
    """An object as a line of a label file: coordinates with as many digits as they need, up to a thousandth
    of a pixel.
    """
    return " ".join([*(f"{value:.3f}".rstrip("0").rstrip(".") for value in corners), name, str(difficult)])


def _is_flat(root: Path) -> bool:
    return os.path.isdir(root / "images") or os.path.isdir(root / "labelTxt")
