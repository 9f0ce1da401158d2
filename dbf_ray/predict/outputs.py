"""What is written of an image's detections, and of all images' together."""

from __future__ import annotations

import contextlib
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from dbf_ray.data.images.geojson import LonLat, Objects, write_geojson
from dbf_ray.errors import ConfigError
from dbf_ray.evaluation.merge import Detections
from dbf_ray.evaluation.submission import ARCHIVE, PREFIX, short_names, text_names
from dbf_ray.files import whole_file
from dbf_ray.geometry import boxes_to_corners
from dbf_ray.predict.folder import TASK1, OutFolder
from dbf_ray.predict.images import Picture
from dbf_ray.reports.overlays import Layout, draw_overlay
from dbf_ray.reports.scenes import outlines

_JPEG_QUALITY = 90


class Result(NamedTuple):
    """An image that has been looked at: what was found, its overlay so far if one is drawn, and where on
    earth its points lie if it tells.
    """

    picture: Picture
    found: Detections
    layout: Layout
    canvas: NDArray[np.uint8] | None
    lonlat: LonLat | None


def write_outputs(folder: OutFolder, result: Result, classes: Sequence[str], overlay_score: float) -> None:
    """Write the detections of one image in the folder's formats, each file in one step; those from
    ``overlay_score`` on are drawn.
    """
    boxes, labels, scores = (
        result.found.boxes.double(),
        result.found.labels.tolist(),
        result.found.scores.double().numpy(),
    )
    corners = boxes_to_corners(boxes).numpy()
    name = result.picture.name
    if "dota" in folder.formats:
        names = text_names(classes)
        with _text(folder.file("dota", name)) as stream:
            for points, label, score in zip(corners.tolist(), labels, scores.tolist(), strict=True):
                stream.write(
                    " ".join([*(f"{value:.2f}" for value in points), names[label], f"{score:.6g}"]) + "\n"
                )
    if "geojson" in folder.formats:
        objects = Objects(boxes.numpy(), corners, [classes[label] for label in labels], scores)
        with _text(folder.file("geojson", name)) as stream:
            write_geojson(stream, result.picture.shown, objects, result.lonlat)
    if "overlay" in folder.formats:
        assert result.canvas is not None
        found = outlines(corners, labels, scores)
        drawn = draw_overlay(result.canvas, result.layout, found, classes, score_threshold=overlay_score)
        with whole_file(folder.file("overlay", name)) as file:
            drawn.save(file, "JPEG", quality=_JPEG_QUALITY)


@contextlib.contextmanager
def _text(file: Path) -> Iterator[TextIO]:
    with (
        whole_file(file) as partial,
        # bytes of an image's name that are no text are escaped as JSON does it
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream,
    ):
        yield stream


def shown_names(names: Sequence[str]) -> Mapping[str, str]:
    """What images are called in Task 1 files, see :func:`.submission.short_names`.

    Raises:
        ConfigError: two would be called the same.
    """
    shown = short_names(names)
    if len(set(shown.values())) == len(names):
        return shown
    twice = next(text for text, count in Counter(shown.values()).items() if count > 1)
    raise ConfigError(
        f"images must differ in more than blanks, two would be called {twice!r} in Task 1 files; rename one"
    )


def write_task1(folder: OutFolder, names: Sequence[str], classes: Sequence[str]) -> None:
    """DOTA's Task 1 files of all images, and their archive, as
    :func:`dbf_ray.evaluation.submission.write_task1` writes them.

    They are made from the text files of the images, line by line: detections of a large folder need not fit
    into memory.

    Args:
        folder: holds ``labels/``.
        names: of the images, as :class:`.Picture` has them.
        classes: in label order.
    """
    shown = shown_names(names)
    place = folder.root / TASK1
    with contextlib.ExitStack() as open_files:
        streams = {}
        for name in text_names(classes):
            streams[name] = open_files.enter_context(_text(place / f"{PREFIX}{name}.txt"))
        for image in sorted(shown, key=lambda name: shown[name]):
            with folder.file("dota", image).open(encoding="utf-8") as lines:
                for line in lines:
                    *corners, name, score = line.split()
                    streams[name].write(" ".join([shown[image], score, *corners]) + "\n")
    with whole_file(place / ARCHIVE) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in text_names(classes):
            # with a fixed date: the same detections are the same bytes
            entry = zipfile.ZipInfo(f"{PREFIX}{name}.txt")
            entry.compress_type, entry.file_size = (
                zipfile.ZIP_DEFLATED,
                (place / entry.filename).stat().st_size,
            )
            with (place / entry.filename).open("rb") as content, archive.open(entry, "w") as stored:
                shutil.copyfileobj(content, stored)
