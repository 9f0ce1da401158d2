"""An image under way: detections of its windows so far, kept every few seconds, so that a kill costs no more
than these.
"""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dbf_ray.evaluation.merge import Detections, joined
from dbf_ray.files import whole_file, write_json
from dbf_ray.predict.images import Picture

EVERY = 5.0  # seconds
_IMAGE, _CANVAS = "image.json", "canvas.npy"


class Partial:
    """Detections of an image's first windows, in files of a folder of its own: a file for each few seconds,
    whole or not there.

    The overlay so far is kept beside them, and written first: it may show windows that no file holds, which
    do it no harm when they come again.

    Args:
        folder: of this image alone.
        picture: parts of another file of this name are not used.
        windows: how many the image has.
        every: seconds between two files.
    """

    def __init__(self, folder: Path, picture: Picture, windows: int, every: float = EVERY) -> None:
        self.folder, self.every = folder, every
        self._identity = {"size": list(picture.size), "stamp": list(picture.stamp), "windows": windows}
        self._pending: list[Detections] = []
        self._kept = self._seen = 0
        self._last = time.monotonic()

    def resume(self, canvas: NDArray[np.uint8] | None) -> tuple[int, list[Detections]]:
        """Windows that are done, and what was found in them; the overlay so far is put into ``canvas`` [H, W,
        3], None for none.
        """
        found: list[Detections] = []
        try:
            if json.loads((self.folder / _IMAGE).read_text(encoding="utf-8")) != self._identity:
                raise ValueError("another image")
            if canvas is not None:
                kept = np.load(self.folder / _CANVAS)
                if (kept.shape, kept.dtype) != (canvas.shape, canvas.dtype):
                    raise ValueError("another overlay")
                canvas[:] = kept
            for file in sorted(self.folder.glob("[0-9]*.npz")):
                first, after = (int(number) for number in file.stem.split("-"))
                if first != self._kept:
                    break
                with np.load(file) as arrays:
                    found.append(Detections(*(torch.from_numpy(arrays[name]) for name in Detections._fields)))
                self._kept = after
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
        ):  # there is nothing, or nothing of use
            self.remove()
            self._kept, found = 0, []
        self._seen = self._kept
        return self._kept, found

    def add(self, found: Detections) -> None:
        """Another window is done."""
        self._pending.append(found)
        self._seen += 1

    def keep(self, canvas: NDArray[np.uint8] | None) -> None:
        """Write what was found since, and the overlay so far, if it is time to; to be called when all windows
        of a batch are added.
        """
        if not self._pending or time.monotonic() - self._last < self.every:
            return
        if not self._kept:
            write_json(self.folder / _IMAGE, self._identity)
        if canvas is not None:
            with whole_file(self.folder / _CANVAS) as file, file.open("wb") as stream:
                np.save(stream, canvas)
        with (
            whole_file(self.folder / f"{self._kept:08d}-{self._seen:08d}.npz") as file,
            file.open("wb") as stream,
        ):
            np.savez(
                stream, **{name: tensor.numpy() for name, tensor in joined(self._pending)._asdict().items()}
            )
        self._kept, self._pending, self._last = self._seen, [], time.monotonic()

    def remove(self) -> None:
        """The image is complete, or given up."""
        shutil.rmtree(self.folder, ignore_errors=True)
