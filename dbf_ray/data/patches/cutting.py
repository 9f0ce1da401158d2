"""Cutting an image into patches: one task, which knows all that it needs, so that tasks may run in any order,
in any process, on any machine that sees the folders.

A patch is written under another name and renamed when whole, its image before its labels. What a restart
finds whole it keeps, what is torn it writes again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dbf_ray.data.images.files import ENDINGS, check_image, ends_with
from dbf_ray.data.images.rasters import Raster, open_raster
from dbf_ray.data.patches.objects import CUT, PADDING, PatchObject, objects_in, read_patch
from dbf_ray.data.readers import LabelledObject
from dbf_ray.data.readers.dota import format_line
from dbf_ray.data.walk import walk
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.files import whole_file, write_text
from dbf_ray.geometry.windows import SMALLEST_PATCH, Window, patch_name, sliding_windows

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
    """Some windows of one image, to be written to ``folder``, where ``name`` is what the image is called;
    ``objects`` None: a test set without labels.
    """

    image: Path
    name: str
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


def run_task(task: SplitTask) -> SplitCounts:
    """Cut the windows of a task that are not there yet.

    Raises:
        DataError: the image cannot be decoded.
    """
    counts = SplitCounts()
    missing = []
    for window in task.windows:
        name = patch_name(task.name, window)
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
