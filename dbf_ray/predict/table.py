"""Detections of a checkpoint as rows of a table, for images as they come over a wire too: what a registered
model answers.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dbf_ray.data.images import files
from dbf_ray.errors import DataError
from dbf_ray.predict.checkpoint import make_task
from dbf_ray.predict.memory import Image, detect_in
from dbf_ray.predict.options import Options
from dbf_ray.predict.windows import Tiling
from dbf_ray.training.checkpoint import whole_checkpoint

COLUMNS = ("image", "label", "score", "cx", "cy", "w", "h", "angle")
MAGIC = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg"}  # how a file begins, and its suffix


class TablePredictor:
    """A checkpoint, loaded once.

    Args:
        checkpoint: a folder like runs/NAME/checkpoints/epoch-00012.

    Attributes:
        defaults: of the parameters that :meth:`rows` takes.

    Raises:
        WeightsError: the checkpoint cannot be read.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self._task, _ = make_task(whole_checkpoint(Path(checkpoint)), Options())
        self.defaults: dict[str, Any] = {"score": 0.0, "window": self._task.tiling.window}

    def rows(
        self, images: Sequence[Any], score: float | None = None, window: int | None = None
    ) -> list[dict[str, Any]]:
        """A row for each detection, image by image, best first.

        Args:
            images: each a path; an array uint8 [H, W, 3], RGB, or the same as nested lists of whole numbers
                in 0..255; or a PNG or JPEG file in base64, with ``data:image/...;base64,`` before it or not.
            score: detections up to it are dropped; those up to the detector's own threshold always are.
            window: side of the windows that slide over an image, in its pixels.

        Returns:
            By :data:`COLUMNS`: the path, or else the image's place in ``images`` as text; the class's name;
            the score; the box in the image's pixels, its angle in degrees, counter-clockwise as seen.

        Raises:
            DataError: an image cannot be read.
            ConfigError: a parameter is out of range.
        """
        asked = {
            **self.defaults,
            **{k: v for k, v in (("score", score), ("window", window)) if v is not None},
        }
        options = Options(score=float(asked["score"]), window=int(asked["window"]))
        side = int(asked["window"])
        tiling = Tiling(side, options.overlap_of(side), self._task.tiling.image_size)
        task = dataclasses.replace(self._task, score=options.score, tiling=tiling)
        read = [read_image(image, number) for number, image in enumerate(images)]
        rows = []
        for number, (image, found) in enumerate(zip(read, detect_in(task, read), strict=True)):
            name = str(image) if isinstance(image, str | Path) else str(number)
            for box, value, label in zip(
                found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
            ):
                rows.append(dict(zip(COLUMNS, (name, task.classes[label], value, *box), strict=True)))
        return rows


def read_image(image: Any, number: int) -> Image:
    """An image as :func:`.memory.detect_in` takes it, see :meth:`TablePredictor.rows`.

    Text is base64 if it decodes to the beginning of a PNG or JPEG file, else a path: that of an image has a
    suffix, and a dot is no sign of base64.

    Raises:
        DataError: it is none.
    """
    if isinstance(image, str):
        content = _decoded(image)
        return Path(image) if content is None else _from_file(content, number)
    if not isinstance(image, list | tuple):
        return image  # which is checked there
    try:
        values = np.asarray(image)
    except ValueError:  # rows of different lengths
        values = np.zeros(0)
    if values.ndim != 3 or values.shape[2] != 3 or values.dtype.kind not in "iu":
        raise DataError(
            f"image {number} must be nested lists [H][W][3] of whole numbers, got {values.dtype} "
            f"{list(values.shape)}; send a file in base64 instead"
        )
    if values.size and not 0 <= values.min() <= values.max() <= 255:
        raise DataError(f"image {number} must have values in 0..255, got {values.min()}..{values.max()}")
    return values.astype(np.uint8)


def _decoded(text: str) -> bytes | None:
    """The content of a PNG or JPEG file in base64; None if the text is something else."""
    is_url = text.startswith("data:image/")
    code = text.partition("base64,")[2] if is_url else text
    try:
        content = base64.b64decode("".join(code.split()), validate=True)
    except (binascii.Error, ValueError):
        content = b""
    return content if is_url or content.startswith(tuple(MAGIC)) else None


def _from_file(content: bytes, number: int) -> Tensor:
    """The pixels of a file that came as bytes, by the rules that hold for all files: upright, 8 bit, RGB."""
    suffix = next((suffix for magic, suffix in MAGIC.items() if content.startswith(magic)), None)
    if suffix is None:
        raise DataError(f"image {number} must be a PNG or JPEG file in base64, it is none; send one")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"image{suffix}"
        file.write_bytes(content)
        try:
            files.check_image(file, any_size=True)
            return files.read_image(file)
        except DataError as error:
            raise DataError(str(error).replace(str(file), f"image {number}")) from error
