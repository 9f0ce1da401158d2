"""Scenes: outlines where the objects are, in the colours of their classes; grids that hold all pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dbf_ray.errors import DataError
from dbf_ray.reports.scenes import draw_scene, outlines, scene_grid
from dbf_ray.reports.style import CLASSES

BOX = [40, 40, 80, 40, 80, 60, 40, 60]


def rgb(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def drawn(picture: Image.Image) -> np.ndarray:
    """Where a picture on black is not black [H, W]."""
    return np.asarray(picture).max(2) > 40


@pytest.fixture
def black() -> np.ndarray:
    return np.zeros((120, 160, 3), dtype=np.uint8)


def test_detection_is_outlined_in_its_class_colour(black: np.ndarray) -> None:
    picture = draw_scene(black, outlines([BOX], [1], [0.9]), captions=False)
    mask = drawn(picture)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((40, 60, 40, 80), abs=2)
    assert not mask[45:56, 45:76].any()
    at_edge = np.asarray(picture)[40, 60].astype(int)
    assert np.abs(at_edge - rgb(CLASSES[1])).max() < 60
    assert not black.any(), "the image was changed"


def test_scale_enlarges_picture_and_outlines(black: np.ndarray) -> None:
    picture = draw_scene(black, outlines([BOX], [0], [0.9]), scale=2.0, captions=False)
    assert picture.size == (320, 240)
    rows, columns = np.nonzero(drawn(picture))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((80, 120, 80, 160), abs=3)


def test_threshold_and_ground_truth(black: np.ndarray) -> None:
    assert not drawn(draw_scene(black, outlines([BOX], [0], [0.2]))).any()
    assert drawn(draw_scene(black, outlines([BOX], [0], [0.2]), score_threshold=0.1)).any()
    truth = np.asarray(draw_scene(black, ground_truth=outlines([BOX], [0]))).astype(int)
    assert truth.max() > 200
    assert np.abs(truth - truth.mean(2, keepdims=True)).max() < 2, "ground truth is not white"
    edge = truth[40, 41:80, 0] > 120
    assert 0.2 < edge.mean() < 0.9, "the outline is not dashed"


def test_caption_stays_inside_the_picture(black: np.ndarray) -> None:
    corner = outlines([[0, 0, 20, 0, 20, 8, 0, 8], [140, 2, 159, 2, 159, 9, 140, 9]], [0, 1], [0.9, 0.8])
    with_text = np.asarray(draw_scene(black, corner, classes=["harbour", "ship"]))
    without = np.asarray(draw_scene(black, corner, captions=False))
    for color in CLASSES[:2]:
        assert (with_text == rgb(color)).all(2).sum() > (without == rgb(color)).all(2).sum() + 50


def test_empty_and_unnamed_labels(black: np.ndarray) -> None:
    assert not drawn(draw_scene(black, outlines([], [], []), outlines([], []))).any()
    assert drawn(draw_scene(black, outlines([BOX], [25], [0.9]), classes=["ship"])).any()


def test_grid_holds_all_pictures() -> None:
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    sizes = [(60, 40), (50, 70), (60, 30), (20, 20)]
    grid = np.asarray(
        scene_grid(
            [Image.new("RGB", size, color) for size, color in zip(sizes, colors, strict=True)],
            3,
            ["a", "b", "c", "d"],
        )
    )
    for (width, height), color in zip(sizes, colors, strict=True):
        assert (grid == color).all(2).sum() == width * height
    assert scene_grid([Image.new("RGB", (10, 10))], columns=5, gap=3).size == (16, 16)


def test_refuses_bad_input(black: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"uint8 \[height, width, 3\], got float64 \[120, 160, 3\]"):
        draw_scene(black.astype(float))
    with pytest.raises(DataError, match="scale must be > 0, got 0"):
        draw_scene(black, scale=0)
    with pytest.raises(DataError, match=r"corners must have shape \[n, 8\]"):
        outlines([[1, 2, 3, 4]], [0])
    with pytest.raises(DataError, match="equal length, got 1, 2 and no"):
        outlines([BOX], [0, 1])
    with pytest.raises(DataError, match="got 0 pictures"):
        scene_grid([])
    with pytest.raises(DataError, match="2 titles"):
        scene_grid([Image.new("RGB", (9, 9))], 1, ["a", "b"])
