"""Pictures of what was found: that what is drawn shows what was counted."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dbf_ray.reports.confusion import confusion_png
from dbf_ray.reports.precision_recall import ClassCurve, precision_recall_png
from dbf_ray.reports.scenes import fitted, headed
from dbf_ray.reports.style import RUNS


def pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def count(image: NDArray[np.uint8], color: str) -> int:
    return int((image == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).sum())


def test_a_better_class_has_more_of_the_plane_below_it() -> None:
    recall = np.linspace(0.1, 1, 10)
    good = ClassCurve("good", recall, np.ones(10), 1.0)
    poor = ClassCurve("poor", recall[:2], np.array([0.3, 0.2]), 0.05)
    image = pixels(precision_recall_png([poor, good], "curves"))
    assert count(image, RUNS[0]) > 3 * count(image, RUNS[1]) > 0  # the best takes the first colour


@pytest.mark.parametrize("classes", [0, 1, 25, 70])
def test_any_number_of_classes_is_drawn(classes: int) -> None:
    curves = [ClassCurve(f"class-{n}", np.array([0.5]), np.array([0.5]), 0.1) for n in range(classes)]
    assert pixels(precision_recall_png(curves, "many", dpi=40)).std() > 0
    counts = np.eye(classes + 1, dtype=np.int64) * 12345
    assert pixels(confusion_png(counts, [c.name for c in curves], "many\nlines", dpi=40)).std() > 0
    empty = ClassCurve("none", np.zeros(0), np.zeros(0), 0.0)
    assert pixels(precision_recall_png([empty], "nothing found", dpi=40)).std() > 0


def test_cells_are_as_dark_as_their_share() -> None:
    def darkness(counts: list[list[int]]) -> float:
        return float(255 - pixels(confusion_png(np.array(counts), ["a"], "t", dpi=50)).mean())

    nothing, some, all_ = (darkness(c) for c in ([[0, 0], [0, 0]], [[5, 5], [0, 0]], [[10, 0], [10, 0]]))
    assert nothing < some < all_


def test_an_image_is_fitted_and_a_sheet_gets_its_lines() -> None:
    image, scale = fitted(np.zeros((50, 100, 3), np.uint8), 200)
    assert (image.shape, scale) == ((100, 200, 3), 2.0)
    sheet = Image.new("RGB", (300, 100), "red")
    one, several = headed(sheet, "text"), headed(sheet, "text", [(f"class-{n}", n) for n in range(12)])
    assert one.width == several.width == 300
    assert 100 < one.height < several.height
    assert count(np.asarray(several), "#ff0000") == 300 * 100
