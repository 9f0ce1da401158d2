"""Overlays: large images made small, window by window, with what was found drawn over them and a line that
says what the colours are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dbf_ray.errors import DataError
from dbf_ray.reports.scenes import Outlines
from dbf_ray.reports.style import CLASSES, INK, MUTED

_SMOOTH = 2  # outlines are drawn this much larger and scaled down: PIL has no smooth lines
_CAPTIONS = 60  # objects in a picture from which on scores are not written at them
_LEGEND_WIDTH = 160  # pixels: narrower pictures have no room for a legend


class Patch(NamedTuple):
    """Part of an overlay: uint8 [h, w, 3], and where its top left pixel lies."""

    row: int
    column: int
    pixels: NDArray[np.uint8]


class Layout(NamedTuple):
    """How an image of ``height`` x ``width`` pixels is shown in ``rows`` x ``columns``, which are not
    more.
    """

    height: int
    width: int
    rows: int
    columns: int

    @classmethod
    def of(cls, size: tuple[int, int], longest: int) -> Layout:
        """For an image of ``size`` (height, width), so that no side is longer than ``longest``."""
        scale = min(1.0, longest / max(size))
        return cls(*size, max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))

    def canvas(self) -> NDArray[np.uint8]:
        """An empty overlay [rows, columns, 3]."""
        return np.zeros((self.rows, self.columns, 3), np.uint8)

    def shrink(self, pixels: NDArray[np.uint8], x: int, y: int) -> Patch:
        """What a window [h, w, 3] of the image, whose top left pixel is (x, y), adds to the overlay.

        Each pixel of the image belongs to the pixel of the overlay that its centre lies in, which is the mean
        of its own.
        """
        if (self.rows, self.columns) == (self.height, self.width):
            return Patch(y, x, pixels.copy())
        column, starts, widths = _cells(x, pixels.shape[1], self.columns, self.width)
        sums = np.add.reduceat(pixels, starts, axis=1, dtype=np.uint32)
        row, starts, heights = _cells(y, pixels.shape[0], self.rows, self.height)
        sums = np.add.reduceat(sums, starts, axis=0, dtype=np.uint32)
        counts = (heights[:, None] * widths)[..., None].astype(np.uint32)
        return Patch(row, column, ((sums + counts // 2) // counts).astype(np.uint8))


def paste(canvas: NDArray[np.uint8], patch: Patch) -> None:
    """Put a patch in its place."""
    height, width = patch.pixels.shape[:2]
    canvas[patch.row : patch.row + height, patch.column : patch.column + width] = patch.pixels


def _cells(
    start: int, length: int, cells: int, pixels: int
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Of ``cells`` that ``pixels`` share, those of ``length`` pixels from ``start`` on: the first one's
    number, first pixels and their counts.
    """
    numbers = (2 * np.arange(start, start + length, dtype=np.int64) + 1) * cells // (2 * pixels)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return int(numbers[0]), starts, np.diff(np.append(starts, length))


def draw_overlay(
    canvas: NDArray[np.uint8],
    layout: Layout,
    found: Outlines,
    classes: Sequence[str],
    *,
    score_threshold: float = 0.3,
) -> Image.Image:
    """An overlay with oriented outlines in the colours of their classes, the best on top, and beneath it a
    legend with numbers.

    Args:
        canvas: the image as :class:`Layout` shows it, uint8 [rows, columns, 3].
        layout: how large the image is.
        found: detections with scores, corners in the image's pixels.
        classes: names by label.
        score_threshold: those below it are not drawn; the legend says how many were.

    Raises:
        DataError: the canvas is not the layout's, or the detections have no scores.
    """
    if canvas.shape != (layout.rows, layout.columns, 3) or canvas.dtype != np.uint8:
        raise DataError(
            f"a canvas must be uint8 [{layout.rows}, {layout.columns}, 3] for this layout, got "
            f"{canvas.dtype} {list(canvas.shape)}"
        )
    if found.scores is None:
        raise DataError("detections to draw must have scores, got none; give them to outlines()")
    order = np.argsort(found.scores, kind="stable")
    order = order[found.scores[order] >= score_threshold]
    points = found.corners[order].reshape(-1, 4, 2) * (
        layout.columns / layout.width,
        layout.rows / layout.height,
    )
    labels, scores = found.labels[order], found.scores[order]
    picture = Image.fromarray(canvas)
    if len(order):
        _draw_outlines(picture, points, labels)
    if 0 < len(order) <= _CAPTIONS:
        _write_captions(
            picture,
            points,
            labels,
            [f"{classes[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)],
        )
    said = f"{len(order):,} of {len(found.scores):,} detections: score >= {score_threshold:g}"
    return _with_legend(
        picture,
        [(classes[label], label, count) for label, count in sorted(Counter(labels.tolist()).items())],
        said,
    )


def _draw_outlines(picture: Image.Image, points: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
    """Outlines as wide as the size of the objects allows, up to three pixels."""
    sides = np.linalg.norm(points - np.roll(points, 1, axis=1), axis=2)
    width = float(np.clip(np.median(sides.max(1)) / 15, 1.5, 3.0))
    layer = Image.new("RGBA", (picture.width * _SMOOTH, picture.height * _SMOOTH))
    pen = ImageDraw.Draw(layer)
    for polygon, label in zip((points * _SMOOTH).reshape(-1, 8).tolist(), labels.tolist(), strict=True):
        pen.line([*polygon, *polygon[:4]], fill=_color(label), width=round(width * _SMOOTH), joint="curve")
    small = layer.resize(picture.size, Image.Resampling.BOX)
    picture.paste(small, (0, 0), small)


def _write_captions(
    picture: Image.Image, points: NDArray[np.float64], labels: NDArray[np.int64], texts: Sequence[str]
) -> None:
    """A plate above each object, best first; one that would cover another is left out."""
    font, pen = _font(picture), ImageDraw.Draw(picture)
    taken: list[tuple[float, float, float, float]] = []
    for polygon, label, text in reversed(list(zip(points, labels.tolist(), texts, strict=True))):
        x, y = polygon[polygon[:, 1].argmin()]
        length, high = pen.textlength(text, font=font) + 4, font.size + 3
        left = min(max(0.0, x - length / 2), max(0.0, picture.width - length))
        top = min(max(0.0, y - high - 2), max(0.0, picture.height - high))
        plate = (left, top, left + length, top + high)
        if not any(
            plate[0] < other[2] and other[0] < plate[2] and plate[1] < other[3] and other[1] < plate[3]
            for other in taken
        ):
            taken.append(plate)
            pen.rectangle(plate, fill=_color(label))
            pen.text((left + length / 2, top + high / 2), text, font=font, fill="#101418", anchor="mm")


def _with_legend(picture: Image.Image, counts: Sequence[tuple[str, int, int]], said: str) -> Image.Image:
    """The picture on top of lines that name the colours."""
    if picture.width < _LEGEND_WIDTH:
        return picture
    font = _font(picture)
    side = int(font.size)
    gap, high = side // 2, round(1.5 * side)
    pen = ImageDraw.Draw(picture)
    entries: list[tuple[int, int, str, str | None]] = []
    x, line = gap, 0
    for text, color in [(f"{name} {count:,}", _color(label)) for name, label, count in counts] + [
        (said, None)
    ]:
        length = round(pen.textlength(text, font=font)) + (side + gap if color else 0) + 2 * gap
        if x > gap and x + length > picture.width:
            x, line = gap, line + 1
        entries.append((x, line, text, color))
        x += length
    sheet = Image.new("RGB", (picture.width, picture.height + (line + 1) * high + gap), "white")
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for x, line, text, color in entries:
        middle = picture.height + gap / 2 + (line + 0.5) * high
        if color:
            pen.rectangle((x, middle - side / 2, x + side, middle + side / 2), fill=color)
            x += side + gap
        pen.text((x, middle), text, font=font, fill=INK if color else MUTED, anchor="lm")
    return sheet


def _color(label: int) -> str:
    return CLASSES[label % len(CLASSES)]


def _font(picture: Image.Image) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=int(np.clip(max(picture.size) / 75, 10, 24)))
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow is built without FreeType"
    return font
