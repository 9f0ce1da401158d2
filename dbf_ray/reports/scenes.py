"""Images with the objects that are there and those that were found, as oriented outlines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from dbf_ray.errors import DataError
from dbf_ray.reports.style import CLASSES, INK

_SMOOTH = 2  # outlines are drawn this much larger and scaled down: PIL has no smooth lines


class Outlines(NamedTuple):
    """Objects of one image: corners [n, 8] (x1, y1, ..., x4, y4) in pixels, labels [n], scores [n] or None
    for ground truth.
    """

    corners: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64] | None


def outlines(corners: ArrayLike, labels: ArrayLike, scores: ArrayLike | None = None) -> Outlines:
    """Check and hold the objects of one image.

    Raises:
        DataError: corners are not [n, 8], or the fields differ in length.
    """
    points, names = np.asarray(corners, dtype=np.float64), np.asarray(labels, dtype=np.int64).reshape(-1)
    if points.size == 0:
        points = points.reshape(-1, 8)
    values = None if scores is None else np.asarray(scores, dtype=np.float64).reshape(-1)
    if points.ndim != 2 or points.shape[1] != 8:
        raise DataError(f"corners must have shape [n, 8] (x1, y1, ..., x4, y4), got {points.shape}")
    if len(names) != len(points) or (values is not None and len(values) != len(points)):
        found = "no" if values is None else len(values)
        raise DataError(
            f"corners, labels and scores must have equal length, got {len(points)}, {len(names)} and {found}"
        )
    return Outlines(points, names, values)


def draw_scene(
    image: NDArray[np.uint8],
    detections: Outlines | None = None,
    ground_truth: Outlines | None = None,
    classes: Sequence[str] | None = None,
    *,
    score_threshold: float = 0.3,
    scale: float = 1.0,
    captions: bool = True,
) -> Image.Image:
    """An image with ground truth as thin white dashed outlines and detections as outlines coloured by class,
    with class and score.

    Args:
        image: uint8 [H, W, 3], RGB; it is not changed.
        detections: what was found; objects with less than ``score_threshold`` are left out, the best are
            drawn on top.
        ground_truth: what is there.
        classes: names by label, for the captions; by default the numbers.
        scale: the picture is this many times as large as the image.
        captions: write class and score at each detection.

    Raises:
        DataError: the image is not uint8 [H, W, 3], or scale is not positive.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"an image must be uint8 [height, width, 3], got {image.dtype} {list(image.shape)}")
    if not scale > 0:
        raise DataError(f"scale must be > 0, got {scale!r}")
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BICUBIC)
    layer = Image.new("RGBA", (size[0] * _SMOOTH, size[1] * _SMOOTH))
    pen = ImageDraw.Draw(layer)
    width = max(1.0, min(size) / 320) * _SMOOTH
    kept = _best(detections, score_threshold)
    if ground_truth is not None:
        for corners in ground_truth.corners:
            _draw_dashed(pen, _polygon(corners, scale * _SMOOTH), width)
    for corners, label, _ in kept:
        polygon = _polygon(corners, scale * _SMOOTH)
        pen.line(
            [*polygon, polygon[0], polygon[1]], fill=_color(label), width=round(1.5 * width), joint="curve"
        )
    picture.paste(small := layer.resize(size, Image.Resampling.LANCZOS), (0, 0), small)
    if captions:
        _captions(picture, kept, classes, scale)
    return picture


def scene_grid(
    pictures: Sequence[Image.Image], columns: int = 3, titles: Sequence[str] | None = None, gap: int = 12
) -> Image.Image:
    """Several pictures in rows on white, each at the top of its cell, with a title above it if given.

    Raises:
        DataError: there is no picture, ``columns`` is < 1, or there is not one title for each picture.
    """
    if not pictures or columns < 1 or (titles is not None and len(titles) != len(pictures)):
        found = "no titles" if titles is None else f"{len(titles)} titles"
        raise DataError(
            f"a grid needs pictures, columns >= 1 and a title for each or none, got {len(pictures)} "
            f"pictures, {columns} columns, {found}"
        )
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    width = max(picture.width for picture in pictures)
    heights = [
        max(picture.height for picture in pictures[row * columns : (row + 1) * columns])
        for row in range(rows)
    ]
    font = _font(max(12, width // 28))
    head = round(1.6 * font.size) if titles else 0
    grid = Image.new(
        "RGB", (columns * (width + gap) + gap, sum(heights) + rows * (head + gap) + gap), "white"
    )
    pen = ImageDraw.Draw(grid)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        left, top = gap + column * (width + gap), gap + sum(heights[:row]) + row * (head + gap)
        if titles:
            pen.text((left, top + head / 2), titles[index], font=font, fill=INK, anchor="lm")
        grid.paste(picture, (left + (width - picture.width) // 2, top + head))
    return grid


def fitted(image: NDArray[np.uint8], longest: int) -> tuple[NDArray[np.uint8], float]:
    """An image [H, W, 3] resized so that its long side has ``longest`` pixels, and by how much."""
    scale = longest / max(image.shape[:2])
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    return np.asarray(Image.fromarray(image).resize((size[0], size[1]), Image.Resampling.LANCZOS)), scale


def headed(sheet: Image.Image, text: str, legend: Sequence[tuple[str, int]] = ()) -> Image.Image:
    """A picture below a line of text and names in the colours of their labels."""
    font = _font(15)
    lines = _lines([(text, None), *legend], sheet.width - 24, font)
    high = 24 * len(lines) + 12
    whole = Image.new("RGB", (sheet.width, sheet.height + high), "white")
    whole.paste(sheet, (0, high))
    pen = ImageDraw.Draw(whole)
    for row, entries in enumerate(lines):
        for x, name, label in entries:
            middle = 12 + 24 * row + 9
            if label is not None:
                pen.rectangle((12 + x, middle - 6, 24 + x, middle + 6), fill=_color(label))
            pen.text(
                (12 + x + (18 if label is not None else 0), middle), name, font=font, fill=INK, anchor="lm"
            )
    return whole


def _lines(
    entries: Sequence[tuple[str, int | None]], width: float, font: ImageFont.FreeTypeFont
) -> list[list[tuple[float, str, int | None]]]:
    """Entries with where they begin, in as many lines as they need."""
    lines: list[list[tuple[float, str, int | None]]] = [[]]
    x = 0.0
    for name, label in entries:
        length = font.getlength(name) + (42 if label is not None else 24)
        if lines[-1] and x + length > width:
            lines.append([])
            x = 0.0
        lines[-1].append((x, name, label))
        x += length
    return lines


def _best(
    detections: Outlines | None, threshold: float
) -> list[tuple[NDArray[np.float64], int, float | None]]:
    """Detections from the threshold on, worst first."""
    if detections is None:
        return []
    scores = detections.scores
    if scores is None:
        return [
            (corners, int(label), None)
            for corners, label in zip(detections.corners, detections.labels, strict=True)
        ]
    order = [index for index in np.argsort(scores, kind="stable") if scores[index] >= threshold]
    return [
        (detections.corners[index], int(detections.labels[index]), float(scores[index])) for index in order
    ]


def _captions(
    picture: Image.Image,
    kept: Sequence[tuple[Any, int, float | None]],
    classes: Sequence[str] | None,
    scale: float,
) -> None:
    """Class and score on a plate above each detection, best first; one that would cover another is left
    out.
    """
    font = _font(max(9, min(picture.size) // 42))
    pen = ImageDraw.Draw(picture)
    taken: list[tuple[float, float, float, float]] = []
    for corners, label, score in reversed(kept):
        name = classes[label] if classes is not None and label < len(classes) else str(label)
        text = name if score is None else f"{name} {score:.2f}"
        top = min(_polygon(corners, scale), key=lambda point: point[1])
        length, high = pen.textlength(text, font=font) + 6, font.size + 4
        x = min(max(0.0, top[0] - length / 2), max(0.0, picture.width - length))
        y = min(max(0.0, top[1] - high - 3), max(0.0, picture.height - high))
        plate = (x, y, x + length, y + high)
        if any(
            plate[0] < other[2] and other[0] < plate[2] and plate[1] < other[3] and other[1] < plate[3]
            for other in taken
        ):
            continue
        taken.append(plate)
        pen.rounded_rectangle(plate, radius=2, fill=_color(label))
        pen.text((x + length / 2, y + high / 2), text, font=font, fill="#101418", anchor="mm")


def _draw_dashed(pen: ImageDraw.ImageDraw, polygon: Sequence[tuple[float, float]], width: float) -> None:
    """A white dashed outline on a dark one, so that it shows on any ground."""
    pen.line([*polygon, polygon[0]], fill=(0, 0, 0, 150), width=round(width), joint="curve")
    for start, end in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        pieces = 2 * max(1, round(math.dist(start, end) / (8 * width))) + 1
        for piece in range(0, pieces, 2):
            ends = [
                tuple(a + (b - a) * (piece + more) / pieces for a, b in zip(start, end, strict=True))
                for more in (0, 1)
            ]
            pen.line(ends, fill=(255, 255, 255, 255), width=round(width))


def _polygon(corners: NDArray[np.float64], scale: float) -> list[tuple[float, float]]:
    return [(float(x) * scale, float(y) * scale) for x, y in corners.reshape(4, 2)]


def _color(label: int) -> str:
    return CLASSES[label % len(CLASSES)]


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow is built without FreeType"
    return font
