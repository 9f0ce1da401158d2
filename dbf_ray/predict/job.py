"""The prediction itself: batches of windows in, files out, image by image. It knows nothing of checkpoints: a
network is a function.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dbf_ray.data.images.geojson import LonLat
from dbf_ray.data.images.rasters import open_raster
from dbf_ray.errors import DataError, ResourceError
from dbf_ray.evaluation.merge import Detections, as_found, joined, suppressed
from dbf_ray.predict.folder import OutFolder
from dbf_ray.predict.images import Picture, measure, stamp_of
from dbf_ray.predict.outputs import Result, write_outputs, write_task1
from dbf_ray.predict.partial import EVERY, Partial
from dbf_ray.predict.reader import OpenImage, Seen, Unreadable, read_ahead
from dbf_ray.predict.windows import Piece, Tiling, batches
from dbf_ray.progress import Counter, print_line
from dbf_ray.reports.overlays import Layout, paste

Detect = Callable[[list[Tensor]], list[Mapping[str, Tensor]]]
"""Images uint8 [3, h, w] to, of each, ``boxes`` [n, 5] in its pixels, ``scores`` [n], best first, and
``labels`` [n].
"""


@dataclass(frozen=True)
class Task:
    """How images are looked at: everything but the images.

    Attributes:
        detect: the network.
        classes: names by label.
        tiling: how images are cut.
        batch: windows at once.
        score: detections up to it are dropped; None: all that the network gives are kept.
        nms: rotated IoU at which detections of a class suppress each other in an image of several windows.
        overlay_size: long side of overlays in pixels.
        overlay_score: detections below it are not drawn.
        every: seconds between two notes of what was found in an image under way.
    """

    detect: Detect
    classes: Sequence[str]
    tiling: Tiling
    batch: int
    score: float | None
    nms: float
    overlay_size: int
    overlay_score: float
    every: float = EVERY

    def run(self, seen: Sequence[Seen]) -> list[Mapping[str, Tensor]]:
        """What the network finds in windows.

        Raises:
            ResourceError: they do not fit into the device's memory.
        """
        try:
            return self.detect([one.pixels for one in seen]) if seen else []
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"a batch must fit into the device's memory, {len(seen)} windows do not: "
                f"{' '.join(str(error).split())[:200]}; lower batch"
            ) from error

    def merge(self, parts: list[Detections], windows: int) -> Detections:
        """Detections of an image of so many ``windows`` from those in ``parts`` of them, best first."""
        found = joined(parts)
        return found if windows == 1 else suppressed(found, self.nms)


class Work:
    """An image under way: what was found in its windows so far, and its overlay so far."""

    def __init__(self, picture: Picture, task: Task, folder: OutFolder) -> None:
        self.picture, self._task = picture, task
        self.windows = len(task.tiling.windows(picture.size))
        self.layout = Layout.of(picture.size, task.overlay_size)
        self.canvas: NDArray[np.uint8] | None = self.layout.canvas() if "overlay" in folder.formats else None
        self._partial = Partial(folder.parts(picture.name), picture, self.windows, task.every)
        self.begun, self._parts = self._partial.resume(self.canvas)

    def add(self, seen: Seen, detection: Mapping[str, Tensor]) -> None:
        """What was found in the next window, in its pixels as the network saw them."""
        found = in_image(detection, seen.piece, self._task.tiling.scale, self._task.score)
        self._parts.append(found)
        self._partial.add(found)
        if self.canvas is not None and seen.patch is not None:
            paste(self.canvas, seen.patch)

    def keep(self) -> None:
        """A batch is done: note it, if it is time to."""
        self._partial.keep(self.canvas)

    def result(self, lonlat: LonLat | None) -> Result:
        """All windows are done."""
        merged = self._task.merge(self._parts, self.windows)
        return Result(self.picture, merged, self.layout, self.canvas, lonlat)

    def drop(self) -> None:
        """Nothing of it is needed any more."""
        self._partial.remove()


def in_image(detection: Mapping[str, Tensor], piece: Piece, scale: float, score: float | None) -> Detections:
    """Detections of a window as the network saw it, resized by ``scale``, in the image's pixels; without
    those up to ``score``, and without boxes that have no area, of which there is nothing to show.
    """
    boxes, scores, labels = (detection[name].detach().cpu() for name in ("boxes", "scores", "labels"))
    found = as_found(boxes.float(), scores.float(), labels, scale)
    found.boxes[:, :2] += torch.tensor([piece.window.x, piece.window.y])
    kept = found.boxes.isfinite().all(1) & (found.boxes[:, 2:4] > 0).all(1)
    if score is not None:
        kept &= found.scores > score
    return Detections(*(tensor[kept] for tensor in found))


def predict_files(
    task: Task,
    files: Mapping[str, Path],
    folder: OutFolder,
    say: Callable[[str], None] | None = None,
    open_image: OpenImage = open_raster,
) -> dict[str, Any]:
    """Look at images, and write what is found in each as soon as it is complete; those that are complete
    already are skipped.

    An image that cannot be read is named and passed over. Killed at any moment and called again, it ends in
    the same files.

    Args:
        task: how.
        files: image files by name, sorted.
        folder: where to.
        say: takes a line for a person; None: they go to stderr.
        open_image: see :func:`.reader.read_ahead`.

    Returns:
        ``images`` (all), ``skipped`` (of them complete before), ``failed`` (a list of ``image`` and
        ``reason``), ``windows`` looked at now, ``detections`` in all complete images, ``seconds``,
        ``windows_per_second`` and ``out``.

    Raises:
        ResourceError: a batch does not fit into the device's memory.
        OSError: a file cannot be written.
    """
    return _Prediction(task, folder, say or print_line).run(files, open_image)


class _Prediction:
    """One call of :func:`predict_files`: which images are complete, with how many detections, and which are
    under way.
    """

    def __init__(self, task: Task, folder: OutFolder, say: Callable[[str], None]) -> None:
        self.task, self.folder, self.say = task, folder, say
        self.detections: dict[str, int] = {}
        self.failed: list[dict[str, str]] = []
        self.works: dict[str, Work] = {}

    def run(self, files: Mapping[str, Path], open_image: OpenImage) -> dict[str, Any]:
        """See :func:`predict_files`."""
        begun = time.perf_counter()
        pictures = self._measured_all(files)
        complete, tiling = frozenset(self.detections), self.task.tiling
        for picture in pictures:
            if picture.name not in complete and self.folder.parts(picture.name).is_dir():
                self.works[picture.name] = Work(picture, self.task, self.folder)
        begin = {name: work.begun for name, work in self.works.items()}
        total = sum(
            len(tiling.windows(picture.size)) for picture in pictures if picture.name not in complete
        ) - sum(begin.values())
        counter = Counter(total, "windows")
        overlay_size = self.task.overlay_size if "overlay" in self.folder.formats else None
        planned = batches(pictures, tiling, self.task.batch, begin, complete)
        with contextlib.closing(read_ahead(planned, tiling, overlay_size, open_image)) as reading:
            for seen in reading:
                self._look_at(seen, complete)
                over = len(self.detections) + len(self.failed)
                counter.add(
                    sum(one.piece.picture.name not in complete for one in seen),
                    f" · {over}/{len(files)} images done",
                )
        if "dota" in self.folder.formats:
            write_task1(self.folder, list(self.detections), self.task.classes)
        self.folder.end()
        seconds = time.perf_counter() - begun
        return {
            "images": len(files),
            "windows": counter.done,
            "detections": sum(self.detections.values()),
            "skipped": len(complete),
            "failed": self.failed,
            "seconds": seconds,
            "windows_per_second": counter.done / max(seconds, 1e-9),
            "out": str(self.folder.root),
        }

    def _measured_all(self, files: Mapping[str, Path]) -> list[Picture]:
        counter, pictures = Counter(len(files), "images measured"), []
        for name, file in files.items():
            if (picture := self._measured(name, file)) is not None:
                pictures.append(picture)
            counter.add()
        return pictures

    def _measured(self, name: str, file: Path) -> Picture | None:
        """An image's size, from what is noted of it if it is complete; None if it cannot be read."""
        try:
            stamp = stamp_of(file)
            if (record := self.folder.done(name, stamp)) is not None:
                self.detections[name] = record["detections"]
                return Picture(file, name, (record["height"], record["width"]), stamp)
            return measure(file, name)
        except DataError as error:
            self._fail(name, str(error))
            return None

    def _look_at(self, batch: Sequence[Seen | Unreadable], complete: Collection[str]) -> None:
        """Run the network on a batch, and finish the images that it completes."""
        readable = [one for one in batch if isinstance(one, Seen)]
        for one in batch:
            if isinstance(one, Unreadable) and one.piece.picture.name not in complete:
                self._fail(one.piece.picture.name, one.reason)
        for seen, detection in zip(readable, self.task.run(readable), strict=True):
            picture = seen.piece.picture
            if picture.name in complete:
                continue
            work = self.works.get(picture.name) or Work(picture, self.task, self.folder)
            self.works[picture.name] = work
            work.add(seen, detection)
            if seen.piece.last:
                self._finish(work, seen.lonlat)
        for work in self.works.values():
            work.keep()

    def _finish(self, work: Work, lonlat: LonLat | None) -> None:
        result = work.result(lonlat)
        write_outputs(self.folder, result, self.task.classes, self.task.overlay_score)
        name, count = work.picture.name, len(result.found.scores)
        self.folder.mark_done(work.picture, work.windows, count)
        work.drop()
        del self.works[name]
        self.detections[name] = count

    def _fail(self, name: str, reason: str) -> None:
        self.say(f"error: {reason}")
        self.failed.append({"image": name, "reason": reason})
        self.folder.forget(name)
        if (work := self.works.pop(name, None)) is not None:
            work.drop()
