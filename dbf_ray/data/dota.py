"""Reader of DOTA's text format: a folder images/ and a folder labelTxt/ with one text file an image.

A label file may begin with header lines (``imagesource:...``, ``gsd:...``); each further line is one object::

    x1 y1 x2 y2 x3 y3 x4 y4 class [difficult]

with the corners of a quadrilateral in pixels and difficult 0 or 1 (0 where it is missing). An empty file is an image without objects.
Format: https://captain-whu.github.io/DOTA/dataset.html. All label errors, and images that are missing or obviously broken, are found when
the data set is made.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dbf_ray.data.images import IMAGE_SUFFIXES, check_image, read_image
from dbf_ray.data.samples import Sample, make_target
from dbf_ray.errors import DataError
from dbf_ray.geometry import canonicalize, corners_to_boxes

HEADERS = ("imagesource:", "gsd:")
LARGEST_COORDINATE = 1e6
SMALLEST_SIDE = 1e-3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelLine:
    """One object as written: 8 corner coordinates, class name, difficult flag, line number from 1."""

    corners: tuple[float, ...]
    name: str
    difficult: bool
    number: int


def parse_line(text: str, place: str, number: int) -> LabelLine:
    """Read one object line; ``place`` is the file and line for messages.

    Raises:
        DataError: wrong number of fields, a coordinate that is no finite number, or a difficult flag other than 0 and 1.
    """
    fields = text.split()
    if len(fields) not in (9, 10):
        raise DataError(
            f"{place}: an object line must be x1 y1 x2 y2 x3 y3 x4 y4 class [difficult], got {len(fields)} fields: {_short(text)}; correct it"
        )
    corners = []
    for field in fields[:8]:
        try:
            value = float(field)
        except ValueError:
            raise DataError(f"{place}: coordinates must be numbers, got {field!r} in: {_short(text)}; correct the line") from None
        if not math.isfinite(value) or abs(value) > LARGEST_COORDINATE:
            raise DataError(
                f"{place}: coordinates must be finite and within {LARGEST_COORDINATE:.0f} pixels, got {field!r} in: {_short(text)}; "
                "correct the line"
            )
        corners.append(value)
    flag = fields[9] if len(fields) == 10 else "0"
    if flag not in ("0", "1"):
        raise DataError(f"{place}: the difficult flag must be 0 or 1, got {flag!r} in: {_short(text)}; correct the line")
    return LabelLine(tuple(corners), fields[8], flag == "1", number)


def read_labels(file: Path) -> list[LabelLine]:
    """All objects of one label file; byte-order mark, CRLF, blank lines and header lines before the first object are skipped.

    Raises:
        DataError: the file cannot be read as UTF-8 text, or a line is malformed.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{file}: every image needs a label file, this one is missing; add it (empty if there are no objects)") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: label files must be UTF-8 text, byte {error.start} is not; save the file as UTF-8") from None
    except OSError as error:
        raise DataError(
            f"{file}: label files must be readable, got: {error.strerror or error}; check the file and its permissions"
        ) from error
    objects: list[LabelLine] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or (not objects and line.strip().lower().startswith(HEADERS)):
            continue
        objects.append(parse_line(line, f"{file}, line {number}", number))
    return objects


def split_folder(root: Path, split: str) -> Path:
    """The folder that holds images/ and labelTxt/ of a split: ROOT/SPLIT, or ROOT itself where it holds them.

    Raises:
        DataError: no such folder, or one of the two sub-folders is missing.
    """
    if not root.is_dir():
        raise DataError(f"the data folder must exist, {root} is not there; give an existing folder as data.root")
    flat = (root / "images").is_dir() or (root / "labelTxt").is_dir()
    folder = root if flat else root / split
    for name in ("images", "labelTxt"):
        if not (folder / name).is_dir():
            raise DataError(
                f"a data folder must hold images/ and labelTxt/, or {split}/ that holds them; {folder / name} is not there; "
                "give such a folder as data.root"
            )
    return folder


def list_images(folder: Path) -> list[Path]:
    """Image files of FOLDER/images in order of their names.

    Raises:
        DataError: there are none, or two differ in their suffix only.
    """
    files = sorted(
        file for file in (folder / "images").iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise DataError(f"{folder / 'images'} must hold images ({', '.join(IMAGE_SUFFIXES)}), found none; give another folder as data.root")
    stems: dict[str, Path] = {}
    for file in files:
        other = stems.setdefault(file.stem, file)
        if other is not file:
            raise DataError(f"{file}: images must differ in more than their suffix, {other.name} has the same label file; rename one")
    return files


def found_classes(root: Path, split: str = "train") -> list[str]:
    """Sorted names of the classes in the label files of a split.

    Raises:
        DataError: no such folder, a malformed label file, or no objects at all.
    """
    folder = split_folder(root, split)
    names = {line.name for file in list_images(folder) for line in read_labels(_label_file(folder, file))}
    if not names:
        raise DataError(f"{folder / 'labelTxt'} must label at least one object to learn from, found none; name the classes in data.classes")
    return sorted(names)


class DotaDataset:
    """Images and labels of one split of a DOTA folder, all labels read and checked."""

    def __init__(self, root: Path | str, split: str = "train", classes: Sequence[str] | None = None, drop_empty: bool = False) -> None:
        """Read all label files and the headers of all images.

        Args:
            root: folder with images/ and labelTxt/, or with train/ and val/ that hold them.
            split: "train" or "val"; a root that holds images/ itself is its own split of any name.
            classes: names in label order; None: the sorted names found in train (for every split).
            drop_empty: leave images without objects out.

        Raises:
            DataError: a folder, label file or line is not usable, an image is broken, or a class is unknown.
        """
        root = Path(root)
        self.folder = split_folder(root, split)
        self.classes = _check_classes(classes) if classes is not None else found_classes(root)
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.files: list[Path] = []
        self.sizes: list[tuple[int, int]] = []
        self._boxes: list[Tensor] = []
        self._labels: list[list[int]] = []
        self._difficult: list[list[bool]] = []
        for file in list_images(self.folder):
            label_file = _label_file(self.folder, file)
            lines = read_labels(label_file)
            self._check_names(lines, label_file, numbers)
            boxes = _to_boxes(lines, label_file)
            size = check_image(file)
            if lines or not drop_empty:
                self.files.append(file)
                self.sizes.append(size)
                self._boxes.append(boxes)
                self._labels.append([numbers[line.name] for line in lines])
                self._difficult.append([line.difficult for line in lines])
        self.image_ids = [file.stem for file in self.files]
        if not self.files:
            raise DataError(
                f"{self.folder / 'labelTxt'} labels no object, so data.drop_empty leaves no image; set data.drop_empty to false"
            )
        self._report_orphans()

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> Sample:
        """Image uint8 [3, H, W] as stored, in RGB, and its target.

        Raises:
            DataError: the image cannot be decoded.
        """
        image = read_image(self.files[index])
        size = (image.shape[1], image.shape[2])
        target = make_target(self._boxes[index].clone(), self._labels[index], self._difficult[index], self.image_ids[index], size)
        return image, target

    def _check_names(self, lines: Sequence[LabelLine], file: Path, numbers: dict[str, int]) -> None:
        for line in lines:
            if line.name not in numbers:
                raise DataError(
                    f"{file}, line {line.number}: classes must be among those of train or data.classes ({', '.join(self.classes)}), "
                    f"got {line.name!r}; correct the line or name the class in data.classes"
                )

    def _report_orphans(self) -> None:
        images = {file.stem for file in (self.folder / "images").iterdir()}
        orphans = sorted(file.name for file in (self.folder / "labelTxt").glob("*.txt") if file.stem not in images)
        if orphans:
            _log.warning("%s: %d label files have no image and are left out, the first is %s", self.folder, len(orphans), orphans[0])


def _label_file(folder: Path, image: Path) -> Path:
    return folder / "labelTxt" / f"{image.stem}.txt"


def _check_classes(classes: Sequence[str]) -> list[str]:
    names = list(classes)
    if not names or len(set(names)) != len(names) or any(not name or name.split() != [name] for name in names):
        raise DataError(f"data.classes must be different names without spaces, at least one, got {names}; correct the list")
    return names


def _to_boxes(lines: Sequence[LabelLine], file: Path) -> Tensor:
    """Canonical boxes [n, 5] float32 of the lines' quadrilaterals; DataError where one has no area."""
    corners = torch.tensor([line.corners for line in lines], dtype=torch.float64).reshape(-1, 8)
    boxes = corners_to_boxes(corners)
    for row in (boxes[:, 3] < SMALLEST_SIDE).nonzero().flatten().tolist():
        line = lines[row]
        polygon = " ".join(f"{value:g}" for value in line.corners)
        raise DataError(f"{file}, line {line.number}: a polygon must have an area, got zero for {polygon}; correct or remove the line")
    return canonicalize(boxes.to(torch.float32))


def _short(text: str, length: int = 120) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= length else text[: length - 3] + "...")
