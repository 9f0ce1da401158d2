"""Overlays: an image made small window by window is the image made small, and outlines lie where the objects
are.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dbf_ray.errors import DataError
from dbf_ray.reports.overlays import Layout, draw_overlay, paste
from dbf_ray.reports.scenes import outlines
from dbf_ray.reports.style import CLASSES

NAMES = ["ship", "plane"]


def shrunk_slowly(pixels: NDArray[np.uint8], layout: Layout) -> NDArray[np.int64]:
    """Each pixel of the image is given to a pixel of the overlay, one by one; means rounded half up."""
    sums, counts = (
        np.zeros((layout.rows, layout.columns, 3), np.int64),
        np.zeros((layout.rows, layout.columns, 1), np.int64),
    )
    for y in range(layout.height):
        for x in range(layout.width):
            row, column = (
                floor(Fraction(2 * y + 1, 2 * layout.height) * layout.rows),
                floor(Fraction(2 * x + 1, 2 * layout.width) * layout.columns),
            )
            sums[row, column] += pixels[y, x]
            counts[row, column] += 1
    return (2 * sums + counts) // (2 * counts)


@given(
    height=st.integers(1, 30), width=st.integers(1, 30), longest=st.integers(1, 35), seed=st.integers(0, 99)
)
@settings(deadline=None, max_examples=40)
def test_a_whole_image_made_small(height: int, width: int, longest: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    layout = Layout.of((height, width), longest)
    assert max(layout.rows, layout.columns) == min(longest, max(height, width))
    patch = layout.shrink(pixels, 0, 0)
    assert (patch.row, patch.column) == (0, 0)
    assert (patch.pixels == shrunk_slowly(pixels, layout)).all()


@given(
    size=st.tuples(st.integers(20, 200), st.integers(20, 200)),
    longest=st.integers(8, 200),
    window=st.integers(10, 90),
    overlap=st.integers(0, 9),
)
@settings(deadline=None, max_examples=50)
def test_windows_put_together_are_the_whole_image(
    size: tuple[int, int], longest: int, window: int, overlap: int
) -> None:
    """Exactly, but for pixels of the overlay that two windows share: these show the part of the later one. A
    slope shows every shift.
    """
    height, width = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    layout = Layout.of(size, longest)
    canvas = layout.canvas() + np.uint8(255)
    starts = [
        sorted({*range(0, max(1, side - window), window - overlap), max(0, side - window)}) for side in size
    ]
    for y in starts[0]:
        for x in starts[1]:
            paste(canvas, layout.shrink(pixels[y : y + window, x : x + window], x, y))
    wanted = layout.shrink(pixels, 0, 0).pixels.astype(int)
    cell = max(height / layout.rows, width / layout.columns)
    assert np.abs(canvas.astype(int) - wanted).max() <= 0.5 * cell + 1
    assert (canvas[..., 2] == 0).all(), "a pixel was never painted"


def test_an_outline_lies_where_the_object_is() -> None:
    layout = Layout.of((400, 800), 200)
    corners = [[200, 80, 400, 80, 400, 160, 200, 160], [600, 200, 700, 200, 700, 300, 600, 300]]
    picture = draw_overlay(layout.canvas(), layout, outlines(corners, [1, 0], [0.9, 0.2]), NAMES)
    assert picture.width == 200
    pixels = np.asarray(picture)[:100].astype(int)
    pixels[:19] = 0  # the caption
    color = [int(CLASSES[1][i : i + 2], 16) for i in (1, 3, 5)]
    rows, columns = np.nonzero(np.abs(pixels - color).max(2) < 90)
    assert (columns.min(), columns.max()) == pytest.approx((50, 100), abs=2)
    assert rows.max() == pytest.approx(40, abs=2)
    assert not pixels[24:36, 56:96].any(), "an outline is not filled"
    assert not pixels[46:80, 145:180].any(), "what is below the threshold is not drawn"


def test_a_legend_is_added_below_where_there_is_room() -> None:
    layout = Layout.of((100, 300), 300)
    picture = draw_overlay(layout.canvas(), layout, outlines([], [], []), NAMES)
    assert picture.height > 100
    assert np.asarray(picture)[104:].min() < 200, "there is no text"
    narrow = Layout.of((100, 60), 300)
    assert draw_overlay(narrow.canvas(), narrow, outlines([], [], []), NAMES).size == (60, 100)


def test_many_classes_take_several_lines() -> None:
    layout = Layout.of((100, 300), 300)
    names = [f"class number {index}" for index in range(30)]
    corners = np.tile([10.0, 10, 20, 10, 20, 20, 10, 20], (30, 1))
    many = draw_overlay(layout.canvas(), layout, outlines(corners, np.arange(30), np.full(30, 0.9)), names)
    one = draw_overlay(layout.canvas(), layout, outlines(corners[:1], [0], [0.9]), names)
    assert many.height > one.height + 100
    assert many.width == one.width == 300


def test_captions_where_objects_are_few() -> None:
    layout = Layout.of((100, 150), 300)
    corners = np.tile([60.0, 50, 90, 50, 90, 60, 60, 60], (61, 1))
    few = np.asarray(
        draw_overlay(
            layout.canvas(), layout, outlines(corners[:60], np.zeros(60, int), np.full(60, 0.9)), NAMES
        )
    )
    many = np.asarray(
        draw_overlay(layout.canvas(), layout, outlines(corners, np.zeros(61, int), np.full(61, 0.9)), NAMES)
    )
    assert few[38:47, 60:90].any()
    assert not many[:45].any()


def test_refuses_what_does_not_fit() -> None:
    layout = Layout.of((100, 150), 300)
    with pytest.raises(DataError, match=r"uint8 \[100, 150, 3\] for this layout, got uint8 \[100, 151, 3\]"):
        draw_overlay(np.zeros((100, 151, 3), np.uint8), layout, outlines([], [], []), NAMES)
    with pytest.raises(DataError, match="must have scores"):
        draw_overlay(layout.canvas(), layout, outlines([], []), NAMES)
