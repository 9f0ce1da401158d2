"""A network that finds bright rectangles by looking at the pixels, images that have some, and folders to
compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dbf_ray.predict.folder import OutFolder
from dbf_ray.predict.job import Task
from dbf_ray.predict.options import FORMATS
from dbf_ray.predict.windows import Tiling

CLASSES = ["plane", "ship"]
Rectangle = tuple[int, int, int, int, int]  # x, y, width, height, label


def find_rectangles(images: list[Tensor]) -> list[Mapping[str, Tensor]]:
    """Each red (plane) or green (ship) rectangle that does not touch the window's border, with its share of
    the window as a score.
    """
    found: list[Mapping[str, Tensor]] = []
    for image in images:
        rows = []
        for label in range(len(CLASSES)):
            left = image[label].numpy() > 127
            while left.any():
                x1, y1, x2, y2 = _grow(left, *(int(value[0]) for value in np.nonzero(left)))
                left[y1:y2, x1:x2] = False
                if min(x1, y1) > 0 and x2 < image.shape[2] and y2 < image.shape[1]:
                    score = 0.5 + (x2 - x1) * (y2 - y1) / 1e5
                    rows.append([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.0, score, label])
        table = torch.tensor(rows).reshape(-1, 7)
        table = table[table[:, 5].argsort(descending=True, stable=True)]
        found.append({"boxes": table[:, :5], "scores": table[:, 5], "labels": table[:, 6].long()})
    return found


def _grow(mask: NDArray[np.bool_], y: int, x: int) -> tuple[int, int, int, int]:
    """The rectangle (x1, y1, x2, y2) around what is connected with a pixel of a mask."""
    x1, y1, x2, y2 = x, y, x + 1, y + 1
    while True:
        wider = (max(0, x1 - 1), max(0, y1 - 1), min(mask.shape[1], x2 + 1), min(mask.shape[0], y2 + 1))
        rows, columns = np.nonzero(mask[wider[1] : wider[3], wider[0] : wider[2]])
        grown = (
            wider[0] + columns.min(),
            wider[1] + rows.min(),
            wider[0] + columns.max() + 1,
            wider[1] + rows.max() + 1,
        )
        if grown == (x1, y1, x2, y2):
            return grown
        x1, y1, x2, y2 = (int(value) for value in grown)


def draw(size: tuple[int, int], rectangles: Sequence[Rectangle]) -> NDArray[np.uint8]:
    """An image [h, w, 3] of ``size`` (height, width) with planes in red and ships in green."""
    pixels = np.zeros((*size, 3), np.uint8)
    for x, y, width, height, label in rectangles:
        pixels[y : y + height, x : x + width, label] = 250
    return pixels


def scattered(size: tuple[int, int], seed: int = 0, step: int = 16) -> list[Rectangle]:
    """Rectangles of 6 to 10 by 3 to 6 pixels, one in each cell of ``step`` pixels, none at the image's
    border.
    """
    generator = np.random.default_rng(seed)
    rectangles = []
    for y in range(1, size[0] - step, step):
        for x in range(1, size[1] - step, step):
            width, height = generator.integers(6, 11), generator.integers(3, 7)
            dx, dy = generator.integers(0, step - width), generator.integers(0, step - height)
            rectangles.append((int(x + dx), int(y + dy), int(width), int(height), int(generator.integers(2))))
    return rectangles


def boxes_of(rectangles: Sequence[Rectangle]) -> list[tuple[float, ...]]:
    """What a file of detections should hold of rectangles, sorted: corners, clockwise from the top left, and
    class.
    """
    return sorted(
        (x, y, x + w, y, x + w, y + h, x, y + h, CLASSES[label]) for x, y, w, h, label in rectangles
    )


def boxes_in(file: Path) -> list[tuple[float, ...]]:
    """Corners and class of each line of a text file of detections, sorted."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return sorted((*(float(value) for value in line[:8]), line[8]) for line in lines)  # type: ignore[misc]


def save(file: Path, pixels: NDArray[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


def make_task(window: int = 64, overlap: int = 16, image_size: int | None = None, **changes: Any) -> Task:
    settings: dict[str, Any] = {
        "detect": find_rectangles,
        "classes": CLASSES,
        "tiling": Tiling(window, overlap, image_size or window),
        "batch": 4,
        "score": None,
        "nms": 0.1,
        "overlay_size": 128,
        "overlay_score": 0.3,
        "every": 0.0,
    }
    return Task(**settings | changes)


def make_folder(root: Path, formats: Sequence[str] = FORMATS) -> OutFolder:
    folder = OutFolder(root, {"formats": list(formats)})
    folder.check()
    folder.begin()
    return folder


def content(root: Path) -> dict[str, bytes]:
    """All files of a folder that are not hidden."""
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.is_file() and file.name[0] != "."
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[[Mapping[str, tuple[int, int]]], dict[str, Path]]:
    """Writes images with scattered rectangles, their sizes (height, width) by name; gives their files by
    name.
    """

    def make(sizes: Mapping[str, tuple[int, int]]) -> dict[str, Path]:
        return {
            name: save(tmp_path / "images" / f"{name}.png", draw(size, scattered(size, seed)))
            for seed, (name, size) in enumerate(sorted(sizes.items()))
        }

    return make
