"""The check of a whole data set: list its splits, look at every image, then at all of them together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dbf_ray.data.check.empty import empty_split
from dbf_ray.data.check.flags import doubtful_flags
from dbf_ray.data.check.kinds import is_refused, severity
from dbf_ray.data.check.look import ImageRecord, Task, look, lost
from dbf_ray.data.check.names import is_train, unknown_classes
from dbf_ray.data.check.statistics import statistics
from dbf_ray.data.check.twins import twins
from dbf_ray.data.class_lists import class_names
from dbf_ray.data.images.files import LARGEST
from dbf_ray.data.readers import Item, Listing, Problem, Reader
from dbf_ray.data.readers.base import knowing, same_names, unions
from dbf_ray.data.walk import walk
from dbf_ray.errors import DataError
from dbf_ray.geometry.windows import told_by_folders

FEWEST = 64  # images for each process
WHOLE = "all"  # name of the one split of a folder that is not divided

Progress = Callable[[int, int], None]  # images looked at, of how many


@dataclass
class Report:
    """What a check found.

    Attributes:
        root: the folder.
        splits: the images of each split by its name.
        problems: in order of file and line.
        notes: what is usual and still good to know.
    """

    root: Path
    splits: dict[str, list[ImageRecord]]
    problems: list[Problem]
    notes: list[str]

    @property
    def records(self) -> list[ImageRecord]:
        """All images, each once."""
        return list({id(record): record for part in self.splits.values() for record in part}.values())

    @property
    def errors(self) -> int:
        """Problems to be mended before training."""
        return sum(severity(problem.kind) == "error" for problem in self.problems)

    @property
    def refused(self) -> int:
        """Problems for which a training refuses the data."""
        return sum(is_refused(problem.kind) for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        numbers = statistics(self.splits)
        return {
            "root": str(self.root),
            "splits": list(self.splits),
            "images": numbers["images"],
            "objects": numbers["objects"],
            "problems": [
                {
                    "kind": one.kind,
                    "severity": severity(one.kind),
                    "file": str(one.file),
                    "line": one.line,
                    "message": one.message,
                }
                for one in self.problems
            ],
            "errors": self.errors,
            "warnings": len(self.problems) - self.errors,
            "notes": self.notes,
            "statistics": numbers,
        }


def check_dataset(
    root: Path | str,
    reader: Reader,
    classes: str | Sequence[str] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Look at all images and labels of a data set; a broken one is reported and never ends the walk.

    Args:
        root: folder of the data.
        reader: of their format.
        classes: all class names, or the name of a public list; None: those that the folder or the format
            declares, or else what is no slip.
        workers: processes that look at images; 0: this one, which an image that crashes the decoder would
            end.
        progress: called after each image with how many are done, and of how many.

    Raises:
        DataError: there is no data set to look at, or ``classes`` is no list of classes.
        ResourceError: no process can be started.
    """
    root = Path(root)
    given = None if classes is None else class_names(classes)
    listings, problems, notes = _listings(reader, root)
    names = _declared(reader, root, problems) if given is None else given
    informed = reader if classes is None else knowing(reader, classes)
    records = _looked_at(informed, listings, workers, progress)
    splits = {name: [records[_key(item)] for item in listing.items] for name, listing in listings.items()}
    for record in records.values():
        problems += record.problems
    for name, listing in listings.items():
        if listing.unlabelled is None:
            problems += empty_split(root if name == WHOLE else root / name, name, splits[name])
    problems += unknown_classes(splits, names)
    problems += [] if names is not None else doubtful_flags(list(records.values()))
    problems += twins(splits)
    notes += _too_large(list(records.values()))
    ordered = sorted(
        dict.fromkeys(problems), key=lambda one: (str(one.file), one.line or 0, one.kind, one.message)
    )
    return Report(root, splits, ordered, notes)


def _listings(reader: Reader, root: Path) -> tuple[dict[str, Listing], list[Problem], list[str]]:
    """The splits to look at, what is wrong with them, and notes.

    Raises:
        DataError: none of them can be listed.
    """
    if not root.is_dir():
        raise DataError(f"the data folder must exist, {root} is not there; give an existing folder")
    listings: dict[str, Listing] = {}
    problems: list[Problem] = []
    notes: list[str] = []
    names = reader.splits(root)
    for name in names or [WHOLE]:
        try:
            listings[name] = reader.listing(root, name)
        except (DataError, OSError) as error:
            if len(names) < 2:
                raise
            problems.append(Problem("broken_split", root / name, " ".join(str(error).split())))
    if not listings:
        raise DataError(problems[0].message)
    for name in unions(listings):
        notes.append(f"{name} is made of other splits, its images are looked at there")
        del listings[name]
    for name, listing in listings.items():
        problems += listing.problems
        problems += same_names(listing.items)
        if (found := told_by_folders(item.name for item in listing.items)) is not None:
            notes.append(
                f"{name} has images of one name in different folders ({found[0]}, {found[1]}): all that is "
                "written has their folders too, but DOTA's server does not know these in Task 1 files"
            )
        if listing.unlabelled is not None:
            if is_train(name) or name.startswith("val"):
                message = "images to train and evaluate on must have labels, these are not there; add them"
                problems.append(Problem("missing_labels", listing.unlabelled, message))
            else:
                notes.append(f"{name} has no labels ({listing.unlabelled} is not there): a test set")
    return listings, problems, notes


def _declared(reader: Reader, root: Path, problems: list[Problem]) -> Sequence[str] | None:
    """The classes that a folder declares, or else its format."""
    try:
        names = reader.class_names(root)
        return reader.classes if names is None else class_names(names)
    except DataError as error:
        if not any(str(problem) == str(error) for problem in problems):
            problems.append(
                Problem(
                    "syntax",
                    root,
                    f"classes must be declared so that they can be read: {' '.join(str(error).split())}",
                )
            )
        return None


def _looked_at(
    reader: Reader, listings: Mapping[str, Listing], workers: int, progress: Progress | None
) -> dict[tuple[Path, Path | None], ImageRecord]:
    items = list({_key(item): item for item in _items(listings)}.values())
    found: dict[tuple[Path, Path | None], ImageRecord] = {}
    for index, record in walk(look, [Task(reader, item) for item in items], workers, FEWEST):
        found[_key(items[index])] = lost(items[index]) if record is None else record
        if progress is not None:
            progress(len(found), len(items))
    return {_key(item): found[_key(item)] for item in items}


def _too_large(records: Sequence[ImageRecord]) -> list[str]:
    """A note where a training would refuse images that patches can be cut from."""
    limit = 2 * (Image.MAX_IMAGE_PIXELS or LARGEST)  # where Pillow refuses
    large = [one for one in records if one.pixels is not None and math.prod(one.pixels.size) > limit]
    if not large:
        return []
    return [
        f"{len(large)} images are too large to train on as they are, {large[0].item.image}, say: split them"
    ]


def _items(listings: Mapping[str, Listing]) -> Iterator[Item]:
    return (item for listing in listings.values() for item in listing.items)


def _key(item: Item) -> tuple[Path, Path | None]:
    return item.image, item.labels
