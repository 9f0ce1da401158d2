"""Pictures and page of what a detector can match."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dbf_ray.reports.coverage import STATES, coverage_png, shapes_png, state_of
from dbf_ray.reports.coverage_page import Scene, coverage_section

SHAPES: dict[str, Any] = {
    "long": [40.0, 60.0, 200.0],
    "short": [10.0, 20.0, 30.0],
    "share": [1.0, 0.5, 0.0],
    "upright": False,
    "anchors": [{"stride": 8, "sides": [[32.0, 16.0]]}],
    "limits": [],
}


def groups(share: float | None, classes: int) -> dict[str, Any]:
    row = {"objects": 4, "covered": share}
    return {
        "all": row,
        "difficult": {"objects": 0, "covered": None},
        "classes": {f"<class {number}>": row for number in range(classes)},
        "sizes": {"below 16 px": row, "16 to 32 px": {"objects": 0, "covered": None}},
    }


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def has_color(picture: Image.Image, color: str) -> bool:
    wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return bool((np.abs(np.asarray(picture).astype(int) - wanted).max(-1) < 8).any())


def test_objects_have_the_colour_of_what_matches_them() -> None:
    assert state_of([1.0, 0.25, 0.0]) == [0, 1, 2]
    picture = opened(shapes_png(SHAPES, "as set", 384))
    assert all(has_color(picture, color) for color, _ in STATES)
    matched = opened(shapes_png({**SHAPES, "share": [1.0, 1.0, 1.0]}, "as set", 384))
    assert [has_color(matched, color) for color, _ in STATES] == [True, False, False]


@pytest.mark.parametrize("anchors", [[], [{"stride": 2**k, "sides": [[4.0, 2.0]]} for k in range(9)]])
def test_any_number_of_levels_and_of_objects(anchors: list[dict[str, Any]]) -> None:
    one = {"long": [1e-3], "short": [1e-3], "share": [0.0], "limits": [64.0], "upright": True}
    assert opened(shapes_png({**one, "anchors": anchors}, "as set", 384)).width > 700


def test_classes_are_bars_the_worst_first_and_no_more_than_fit() -> None:
    few, many = (opened(coverage_png(groups(0.1, k), groups(0.9, k))) for k in (2, 10))
    assert many.height > few.height
    capped = opened(coverage_png(groups(0.1, 90), groups(0.9, 90), most=10))
    assert capped.size == many.size


def test_the_part_of_the_page() -> None:
    coverage = {
        "detector": "rotated_retinanet",
        "options": {"anchor_scales": [0.5]},
        "split": "train",
        "image_size": 384,
        "views": 4,
        "objects": 9000,
        "looked_at": 3000,
        "before": groups(0.125, 1),
        "after": groups(0.875, 1),
    }
    scene = Scene(Image.new("RGB", (20, 10)), "a<b>.png", 3, 2, 7)
    page = coverage_section(coverage, {"as set": SHAPES}, [scene])
    assert "9000 objects (train)" in page
    assert "3000 of them are looked at" in page
    assert "anchor_scales [0.5]" in page
    assert "<td>&lt;class 0&gt;</td><td class='number'>4</td><td class='number'>87.5%</td>" in page
    assert "a&lt;b&gt;.png<br><span class='muted'>3 of 7 objects in no view, 2 in some only" in page
    assert "<class" not in page
    assert "each is matched in every view" in coverage_section(coverage, {"as set": SHAPES}, [])
