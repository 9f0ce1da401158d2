"""Cutting a data set into patches to train on: DOTA's text format out, whatever format comes in.

Deterministic, and restartable at any moment: a patch is written under another name and renamed when whole,
its image before its labels. What a restart finds whole it keeps, what is torn it writes again, and patches of
images that are gone or have changed it removes. Each task is an image, or a row of windows of one that can be
read by windows, and knows all that it needs: tasks may run in any order, in any process, on any machine that
sees the folders.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dbf_ray.data.class_lists import class_names
from dbf_ray.data.images.files import ENDINGS, check_image, ends_with, is_windowed
from dbf_ray.data.images.rasters import Raster, open_raster
from dbf_ray.data.labelled import read_split, to_boxes, unknown_class
from dbf_ray.data.patches.objects import CUT, PADDING, PatchObject, objects_in, read_patch
from dbf_ray.data.readers import Item, LabelledObject, Labels, Listing, Reader
from dbf_ray.data.readers.base import TOLERATED, unions
from dbf_ray.data.readers.dota import format_line
from dbf_ray.data.walk import walk
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.files import whole_file, write_text
from dbf_ray.geometry.windows import SMALLEST_PATCH, Window, patch_name, sliding_windows

SETTINGS_FILE = "split.json"
SOURCES_FILE = "sources.json"
"""Which images the patches are of: length and time of change of each."""
ORIGINALS = "originals"
"""Folder beside images/ and labelTxt/ with the labels of the uncut images, by which merged detections are
judged.
"""
WHOLE = "all"  # what the split of an undivided folder is called
_PNG_EFFORT = 1  # of 9; higher ones save a few per cent of the size for twice the time and more


@dataclass(frozen=True)
class SplitSettings:
    """How images are cut.

    Attributes:
        size: side of a patch, pixels, at rate 1.
        overlap: pixels that neighbours share, at rate 1.
        rates: a window at rate r has sides of size / r pixels, so that objects look r times as large once
            patches are resized alike.
        share: least share of an object's area that must lie in a patch to be labelled there (MMRotate's
            iof_thr).
        image_share: patches with no more of them on the image are left out where there are better ones
            (MMRotate's img_rate_thr).
        clip: label what is left of an object that is cut; False: all of it, as MMRotate does.
        padding: RGB beyond the image; None: patches end with the image.
    """

    size: int = 1024
    overlap: int = 200
    rates: tuple[float, ...] = (1.0,)
    share: float = 0.7
    image_share: float = 0.6
    clip: bool = True
    padding: tuple[int, int, int] | None = PADDING

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.overlap < self.size:
            raise ConfigError(
                f"size must be >= 1 and overlap in [0, size), got {self.size} and {self.overlap}; change one"
            )
        if (
            not self.rates
            or any(not 0.01 <= rate <= 100 for rate in self.rates)
            or len(set(self.rates)) != len(self.rates)
        ):
            raise ConfigError(
                f"rates must be different numbers in [0.01, 100], at least one, got {list(self.rates)}; "
                "correct them"
            )
        if small := [size for size in self.sizes if size < SMALLEST_PATCH]:
            raise ConfigError(
                f"windows must be at least {SMALLEST_PATCH} pixels wide, got {small[0]}; raise size or lower "
                "the largest rate"
            )
        if not 0 < self.share <= 1 or not 0 <= self.image_share < 1:
            raise ConfigError(
                f"the share of an object must be in (0, 1] and that of an image in [0, 1), got {self.share} "
                f"and {self.image_share}; correct them"
            )

    @property
    def sizes(self) -> list[int]:
        """Sides of the windows, pixels."""
        return [int(self.size / rate) for rate in self.rates]

    def windows(self, height: int, width: int) -> list[Window]:
        """The windows of an image."""
        return sliding_windows(
            height, width, self.sizes, [int(self.overlap / rate) for rate in self.rates], self.image_share
        )


@dataclass(frozen=True)
class SplitTask:
    """Some windows of one image, to be written to ``folder``; ``objects`` None: a test set without labels."""

    image: Path
    folder: Path
    objects: tuple[LabelledObject, ...] | None
    windows: tuple[Window, ...]
    settings: SplitSettings


@dataclass(frozen=True)
class SplitCounts:
    """What a task did: patches written and patches found whole, objects in them, and how many of these are
    cut.
    """

    written: int = 0
    kept: int = 0
    objects: int = 0
    cut: int = 0

    def __add__(self, other: SplitCounts) -> SplitCounts:
        return SplitCounts(
            *(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True))
        )


@dataclass(frozen=True)
class SplitPlan:
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


def plan_split(
    reader: Reader, root: Path, out: Path, settings: SplitSettings, classes: str | Sequence[str] | None = None
) -> SplitPlan:
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
    plan = SplitPlan([], {}, {}, [], unions(listings))
    for split in (name for name in listings if name not in plan.together):
        folder = out / split if splits else out
        for item, labels in _read(reader, root, split, listings[split], classes):
            windows = settings.windows(*check_image(item.image, any_size=True))
            if labels is not None:
                plan.originals[folder / ORIGINALS / f"{item.image.stem}.txt"] = original_text(labels.objects)
                plan.lost.extend(
                    (item.image, one)
                    for one in labels.objects
                    if not any(objects_in([one], w, settings.share) for w in windows)
                )
            plan.tasks.extend(_tasks(item, labels, windows, folder, settings))
            found = item.image.stat()
            plan.stamps[str(folder.relative_to(out) / item.image.stem)] = [found.st_size, found.st_mtime_ns]
    return plan


def prepare_out(
    plan: SplitPlan,
    root: Path,
    out: Path,
    settings: SplitSettings,
    classes: str | Sequence[str] | None = None,
) -> int:
    """Make the folders of OUT, write what is known before anything is cut, and remove what belongs to no
    patch of the plan any more.

    To be called by the only process that writes there.

    Returns:
        How many patches of images that are gone or have changed were removed.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / SETTINGS_FILE, json.dumps(_described(root, settings, classes), indent=1) + "\n")
    before = _json(out / SOURCES_FILE)
    changed = {name for name, stamp in plan.stamps.items() if name in before and before[name] != stamp}
    removed = 0
    for folder in sorted({task.folder for task in plan.tasks}):
        labelled = any(file.parent == folder / ORIGINALS for file in plan.originals)
        planned = {
            patch_name(task.image.stem, window)
            for task in plan.tasks
            if task.folder == folder and str(folder.relative_to(out) / task.image.stem) not in changed
            for window in task.windows
        }
        for name in ("images", "labelTxt", ORIGINALS) if labelled else ("images",):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for file in (folder / "images").iterdir():
            removed += not file.name.startswith(".") and file.stem not in planned
        _keep(folder / "images", planned)
        _keep(folder / "labelTxt", planned)
        _keep(folder / ORIGINALS, {file.stem for file in plan.originals if file.parent == folder / ORIGINALS})
    for file, text in plan.originals.items():
        write_text(file, text)
    write_text(out / SOURCES_FILE, json.dumps(plan.stamps, indent=0) + "\n")
    return removed


def _keep(folder: Path, names: Collection[str]) -> None:
    """Remove files other than those, half-written ones too; hidden ones stand for half-written ones."""
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.name.startswith(".") or file.stem not in names:
            file.unlink(missing_ok=True)


def run_task(task: SplitTask) -> SplitCounts:
    """Cut the windows of a task that are not there yet.

    Raises:
        DataError: the image cannot be decoded.
    """
    counts = SplitCounts()
    missing = []
    for window in task.windows:
        name = patch_name(task.image.stem, window)
        objects = (
            None
            if task.objects is None
            else objects_in(task.objects, window, task.settings.share, task.settings.clip)
        )
        text = None if objects is None else patch_text(objects)
        counts += SplitCounts(
            objects=len(objects or ()), cut=sum(one.difficult == CUT for one in objects or ())
        )
        if _is_whole(task.folder, name, text):
            counts += SplitCounts(kept=1)
        else:
            missing.append((window, name, text))
    if missing:
        with open_raster(task.image) as raster:
            for window, name, text in missing:
                _write_patch(raster, window, task.folder, name, text, task.settings.padding)
        counts += SplitCounts(written=len(missing))
    return counts


def cut(task: SplitTask) -> SplitCounts | DataError:
    """:func:`run_task`, an error in place of the counts: one image that cannot be cut does not stop the
    others.
    """
    try:
        return run_task(task)
    except DataError as error:
        return error


def cut_all(tasks: Sequence[SplitTask], workers: int) -> Iterator[SplitCounts | DataError]:
    """Counts of each task, or its error, in the order in which they are done; ``workers`` as in
    :func:`.walk.walk`.
    """
    for index, done in walk(cut, tasks, workers):
        message = (
            "the process that cut it was ended (a crash, or no memory left); replace the file, or start "
            "again with fewer workers"
        )
        yield DataError(f"{tasks[index].image}: {message}") if done is None else done


def patch_text(objects: Sequence[PatchObject]) -> str:
    """The label file of a patch."""
    return "".join(f"{format_line(*one)}\n" for one in objects)


def original_text(objects: Sequence[LabelledObject]) -> str:
    """The label file of an uncut image."""
    return "".join(f"{format_line(one.corners, one.name, int(one.difficult))}\n" for one in objects)


def _read(
    reader: Reader, root: Path, split: str, listing: Listing, classes: str | Sequence[str] | None
) -> Iterator[tuple[Item, Labels | None]]:
    """Images of a split with their objects, None for a test set's; every one of them checked."""
    if listing.unlabelled is not None:
        for problem in listing.problems:
            if problem.kind not in TOLERATED:
                raise problem.error()
        yield from ((item, None) for item in listing.items)
        return
    names = None if classes is None else class_names(classes)
    for item, labels in read_split(reader, root, split):
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
        yield SplitTask(item.image, folder, objects, tuple(row), settings)


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
    elif out.exists() and (not out.is_dir() or any(entry.name != ".lock" for entry in out.iterdir())):
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


def _is_whole(folder: Path, name: str, text: str | None) -> bool:
    """Whether a patch is there, its image with its end and its labels as they should be; the labels are
    written last.
    """
    image = folder / "images" / f"{name}.png"
    if text is not None and _text_of(folder / "labelTxt" / f"{name}.txt") != text:
        return False
    try:
        return (
            image.is_file() and ends_with(image, ENDINGS["PNG"]) and bool(check_image(image, any_size=True))
        )
    except DataError:
        return False


def _text_of(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _write_patch(
    raster: Raster,
    window: Window,
    folder: Path,
    name: str,
    text: str | None,
    padding: tuple[int, int, int] | None,
) -> None:
    pixels = read_patch(raster, window, padding).permute(1, 2, 0).numpy()
    with whole_file(folder / "images" / f"{name}.png") as partial:
        Image.fromarray(pixels).save(partial, "PNG", compress_level=_PNG_EFFORT)
    if text is not None:
        write_text(folder / "labelTxt" / f"{name}.txt", text)
