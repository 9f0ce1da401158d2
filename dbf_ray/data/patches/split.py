"""Cutting a data set into patches to train on: what there is to do, and where it goes. DOTA's text format
out, whatever format comes in.

Deterministic, and restartable at any moment: patches of images that are gone or have changed are removed.
Each task (:mod:`.cutting`) is an image, or a row of windows of one that can be read by windows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbf_ray.data.class_lists import class_names
from dbf_ray.data.images.files import check_image, is_windowed
from dbf_ray.data.images.folders import is_of_the_system, name_below
from dbf_ray.data.labelled import read_split, to_boxes, unknown_class
from dbf_ray.data.patches.cutting import SplitSettings, SplitTask
from dbf_ray.data.patches.objects import objects_in
from dbf_ray.data.readers import Item, LabelledObject, Labels, Listing, Reader
from dbf_ray.data.readers.base import TOLERATED, knowing, same_names, unions
from dbf_ray.data.readers.dota import format_line
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.files import LONGEST_NAME, write_text
from dbf_ray.geometry.windows import Window, patch_name

SETTINGS_FILE = "split.json"
SOURCES_FILE = "sources.json"
"""Which images the patches are of: length and time of change of each."""
ORIGINALS = "originals"
"""Folder beside images/ and labelTxt/ with the labels of the uncut images, by which merged detections are
judged.
"""
WHOLE = "all"  # what the split of an undivided folder is called


@dataclass(frozen=True)
class SplitWork:
    """What a split has to do, everything checked and nothing written.

    Attributes:
        tasks: to be run in any order.
        originals: text of the label files of the uncut images.
        stamps: length and time of change of each image, by which a restart tells another.
        lost: (image, object) of the objects that are in no patch.
        together: splits that are left out, since others make them up (trainval).
    """

    tasks: list[SplitTask]
    originals: dict[Path, str]
    stamps: dict[str, list[int]]
    lost: list[tuple[Path, LabelledObject]]
    together: list[str]


def split_work(
    reader: Reader, root: Path, out: Path, settings: SplitSettings, classes: str | Sequence[str] | None = None
) -> SplitWork:
    """Read and check all labels and the headers of all images, and say what there is to do; nothing is
    written.

    OUT/SPLIT gets images/, labelTxt/ and originals/ for each split of ROOT but those that others make up
    (trainval); an undivided ROOT is cut into OUT itself.

    Raises:
        DataError: the data are not usable, or OUT lies within ROOT.
        ConfigError: OUT holds other files, or patches that were cut otherwise.
    """
    root, out = Path(root), Path(out)
    if out.resolve() == root.resolve() or root.resolve() in out.resolve().parents:
        raise DataError(
            f"patches must go to a folder outside the data, got {out} within {root}; give another OUT"
        )
    check_out(out, _described(root, settings, classes))
    splits = reader.splits(root)
    listings = {split: reader.listing(root, split) for split in splits or [WHOLE]}
    work = SplitWork([], {}, {}, [], unions(listings))
    for split in (name for name in listings if name not in work.together):
        folder = out / split if splits else out
        for item, labels in _read(reader, root, split, listings[split], classes):
            windows = settings.windows(*check_image(item.image, any_size=True))
            if labels is not None:
                work.originals[folder / ORIGINALS / f"{item.name}.txt"] = original_text(labels.objects)
                work.lost.extend(
                    (item.image, one)
                    for one in labels.objects
                    if not any(objects_in([one], w, settings.share) for w in windows)
                )
            work.tasks.extend(_tasks(item, labels, windows, folder, settings))
            found = item.image.stat()
            work.stamps[str(folder.relative_to(out) / item.name)] = [found.st_size, found.st_mtime_ns]
            check_lengths(item, windows)
    return work


def prepare_out(
    work: SplitWork,
    root: Path,
    out: Path,
    settings: SplitSettings,
    classes: str | Sequence[str] | None = None,
) -> int:
    """Make the folders of OUT, write what is known before anything is cut, and remove what belongs to no
    patch of this work any more.

    To be called by the only process that writes there.

    Returns:
        How many patches of images that are gone or have changed were removed.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / SETTINGS_FILE, json.dumps(_described(root, settings, classes), indent=1) + "\n")
    before = _json(out / SOURCES_FILE)
    changed = {name for name, stamp in work.stamps.items() if name in before and before[name] != stamp}
    removed = 0
    for folder in sorted({task.folder for task in work.tasks}):
        originals = {
            name_below(file, folder / ORIGINALS)
            for file in work.originals
            if file.is_relative_to(folder / ORIGINALS)
        }
        wanted = {
            patch_name(task.name, window)
            for task in work.tasks
            if task.folder == folder and str(folder.relative_to(out) / task.name) not in changed
            for window in task.windows
        }
        for name in ("images", "labelTxt", ORIGINALS) if originals else ("images",):
            (folder / name).mkdir(parents=True, exist_ok=True)
        removed += _keep(folder / "images", wanted)
        _keep(folder / "labelTxt", wanted)
        _keep(folder / ORIGINALS, originals)
    for file, text in work.originals.items():
        write_text(file, text)
    write_text(out / SOURCES_FILE, json.dumps(work.stamps, indent=0) + "\n")
    return removed


def _keep(folder: Path, names: Collection[str]) -> int:
    """Remove files other than those, half-written ones too, for which hidden ones stand, and folders that are
    empty then; the count of the others.
    """
    removed = 0
    for place, folders, files in os.walk(folder, topdown=False):
        for file in (Path(place) / name for name in files):
            if file.name.startswith(".") or name_below(file, folder) not in names:
                file.unlink(missing_ok=True)
                removed += not file.name.startswith(".")
        for inside in folders:
            with contextlib.suppress(OSError):  # it holds files that stay
                (Path(place) / inside).rmdir()
    return removed


def check_lengths(item: Item, windows: Sequence[Window]) -> None:
    """Refuse an image whose patches would have names that no file system takes.

    Raises:
        DataError: there is one.
    """
    longest = max((os.path.basename(patch_name(item.name, window)) for window in windows), key=len)
    if (length := len(os.fsencode(f"{longest}.png"))) > LONGEST_NAME:
        raise DataError(
            f"{item.image}: names of files must be within {LONGEST_NAME} bytes, a patch would be called "
            f"{longest[:20]}...{longest[-20:]}.png, {length} bytes; give the image a shorter name"
        )


def original_text(objects: Sequence[LabelledObject]) -> str:
    """The label file of an uncut image."""
    return "".join(f"{format_line(one.corners, one.name, int(one.difficult))}\n" for one in objects)


def _read(
    reader: Reader, root: Path, split: str, listing: Listing, classes: str | Sequence[str] | None
) -> Iterator[tuple[Item, Labels | None]]:
    """Images of a split with their objects, None for a test set's; every one of them checked."""
    if listing.unlabelled is not None:
        for problem in (*listing.problems, *same_names(listing.items)):
            if problem.kind not in TOLERATED:
                raise problem.error()
        yield from ((item, None) for item in listing.items)
        return
    names = None if classes is None else class_names(classes)
    informed = reader if classes is None else knowing(reader, classes)
    for item, labels in read_split(informed, root, split):
        place = item.labels or item.image
        for one in labels.objects:
            if names is not None and one.name not in names:
                raise unknown_class(one, place, f"classes must be among {', '.join(names)}").error()
        to_boxes(labels.objects, place)
        yield item, labels


def _tasks(
    item: Item, labels: Labels | None, windows: Sequence[Window], folder: Path, settings: SplitSettings
) -> Iterator[SplitTask]:
    """The image as one task, or each row of its windows where they are decoded by themselves."""
    objects = None if labels is None else tuple(labels.objects)
    rows: dict[tuple[int, int], list[Window]] = {}
    for window in windows:
        rows.setdefault((window.size, window.y) if is_windowed(item.image) else (0, 0), []).append(window)
    for row in rows.values():
        yield SplitTask(item.image, item.name, folder, objects, tuple(row), settings)


def _described(root: Path, settings: SplitSettings, classes: str | Sequence[str] | None) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(
        json.dumps({"root": str(root.resolve()), "classes": classes, **dataclasses.asdict(settings)})
    )
    return described


def check_out(out: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse an OUT that is for something else.

    Raises:
        ConfigError: it holds other files, or patches that were cut otherwise.
    """
    file = out / SETTINGS_FILE
    if file.is_file():
        found = _json(file)
        if different := [
            f"{key} {found.get(key)!r} there, {wanted[key]!r} now"
            for key in wanted
            if found.get(key) != wanted[key]
        ]:
            raise ConfigError(
                f"{out} holds patches that were cut otherwise: {'; '.join(different)}; give another OUT, or "
                "remove it"
            )
    elif out.exists() and not (
        out.is_dir() and all(entry.name == ".lock" or is_of_the_system(entry.name) for entry in out.iterdir())
    ):
        raise ConfigError(
            f"OUT must be a new folder or one that a split was cut into before, {out} holds other files; "
            "give another"
        )


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
