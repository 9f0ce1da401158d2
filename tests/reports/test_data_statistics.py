"""The picture and the page of a data set's check: they show what the numbers say, also where there is nothing
to show.
"""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from dbf_ray.reports import data_statistics
from dbf_ray.reports.data_page import MOST_ROWS, data_page, summary
from dbf_ray.reports.data_statistics import MOST_CLASSES, statistics_png, subtitle


def spread(edges: list[float], counts: list[int]) -> dict[str, Any]:
    middle = edges[len(edges) // 2]
    return {
        "mean": middle,
        "quantiles": dict.fromkeys(("0", "0.05", "0.25", "0.5", "0.75", "0.95", "1"), middle),
        "histogram": {"edges": edges, "counts": counts},
    }


def numbers(classes: int = 3, empty: bool = False) -> dict[str, Any]:
    sizes = [2.0**power for power in range(0, 13)]
    counts = [0] * 12 if empty else [0, 0, 0, 1, 5, 9, 4, 1, 0, 0, 0, 0]
    angles = [float(angle) for angle in range(-90, 91, 5)]
    result = {
        "images": 0 if empty else 12,
        "images_without_objects": 0 if empty else 2,
        "objects": sum(counts),
        "difficult": 0 if empty else 4,
        "splits": {"train": {"images": 8}, "val": {"images": 4}},
        "classes": {} if empty else {f"class-{n}": {"objects": 10 ** (1 + n % 4)} for n in range(classes)},
        "past_border": {"objects": 0 if empty else 1, "share": 0.05},
        "angle": spread(angles, [0 if empty else n % 7 for n in range(36)]),
        "aspect_ratio": spread(
            [1 + n / 4 for n in range(61)], [0 if empty else (n < 9) * 3 for n in range(60)]
        ),
        "objects_per_image": spread([0.0, 1.0, 2.0, 4.0, 8.0], [0] * 4 if empty else [2, 4, 5, 1]),
        "image_sizes": [] if empty else [[640, 480, 9], [800, 800, 2], [4000, 3000, 1]],
    }
    return result | {name: spread(sizes, counts) for name in ("size", "long_side", "short_side")}


def test_picture_has_six_panels_and_is_the_size_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    set_title = Axes.set_title

    def noted(self: Axes, label: str, *rest: Any, **more: Any) -> Any:
        titles.append(label)
        return set_title(self, label, *rest, **more)

    monkeypatch.setattr(Axes, "set_title", noted)
    picture = Image.open(io.BytesIO(statistics_png(numbers(), "My data", width=8, dpi=50)))
    assert picture.format == "PNG"
    assert picture.size == (400, 264)
    assert titles == [
        "objects of each class",
        "sizes of objects",
        "aspect ratios of objects",
        "objects in an image",
        "sizes of images",
    ]


def test_bars_are_as_long_as_classes_are_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[str], list[int]]] = []
    barh = Axes.barh

    def noted(self: Axes, y: Any, width: Any, *rest: Any, **more: Any) -> Any:
        drawn.append(([], list(width)))
        return barh(self, y, width, *rest, **more)

    monkeypatch.setattr(Axes, "barh", noted)
    statistics_png(numbers(MOST_CLASSES + 7), dpi=40)
    ((_, widths),) = drawn
    assert len(widths) == MOST_CLASSES + 1
    assert widths[:4] == [10, 100, 1000, 10000]
    assert widths[-1] == sum(10 ** (1 + n % 4) for n in range(MOST_CLASSES, MOST_CLASSES + 7))


def test_more_data_is_more_ink() -> None:
    full, empty = (
        np.asarray(Image.open(io.BytesIO(statistics_png(data, dpi=50))).convert("L"))
        for data in (numbers(), numbers(empty=True))
    )
    assert (full < 160).sum() > 2 * (empty < 160).sum()
    assert (empty < 160).sum() > 100, "the empty picture says nothing at all"


def test_one_image_and_one_object_can_be_drawn() -> None:
    data = numbers(1)
    data["image_sizes"] = [[64, 64, 1]]
    data["splits"] = {"all": {"images": 1}}
    assert Image.open(io.BytesIO(statistics_png(data, dpi=40))).size == (520, 343)


def test_subtitle_tells_counts() -> None:
    assert subtitle(numbers()) == (
        "12 images (train 8, val 4), 2 without objects  ·  20 objects, 4 difficult  ·  5.0% of them reach "
        "past the border"
    )
    assert subtitle(numbers(empty=True)) == "0 images (train 8, val 4)  ·  0 objects"


def test_large_counts_are_short() -> None:
    assert [data_statistics._thousands(value) for value in (1, 9000, 12000, 2.5e6)] == [
        "1",
        "9000",
        "12k",
        "2.5M",
    ]


class Cells(HTMLParser):
    """All text of table cells, and the sources of images."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.sources: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "td"
        if self.inside:
            self.cells.append("")
        if tag == "img":
            self.sources.append(str(dict(attrs)["src"]))

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def report(problems: list[dict[str, Any]]) -> dict[str, Any]:
    errors = sum(problem["severity"] == "error" for problem in problems)
    counts = {"errors": errors, "warnings": len(problems) - errors, "images": 3, "objects": 7}
    return {"root": "<root>", "format": "dota", "notes": ["a & b"], "problems": problems, **counts}


def problem(kind: str, severity: str, line: int | None, message: str) -> dict[str, Any]:
    return {"kind": kind, "severity": severity, "file": "a/b.txt", "line": line, "message": message}


def test_page_lists_problems_and_holds_the_pictures() -> None:
    found = [problem("tiny", "warning", 3, "x < 2"), problem("leak", "error", None, "<img>")]
    page = data_page(report(found), {"leak": "two splits"}, b"one", b"two")
    cells = Cells()
    cells.feed(page)
    assert cells.cells == ["a/b.txt", "", "<img>", "a/b.txt", "3", "x < 2"]
    assert cells.sources == ["data:image/png;base64,b25l", "data:image/png;base64,dHdv"]
    assert "1 error, 1 warning in 3 images with 7 objects" in page
    assert "two splits" in page
    assert "a &amp; b" in page
    assert "&lt;root&gt;" in page
    assert not re.search(r"(src|href)=['\"]https?:", page), "the page needs a network"


def test_page_without_problems_and_samples() -> None:
    page = data_page(report([]), {}, b"one", None)
    assert "no problems in 3 images" in page
    assert "no image has objects" in page
    assert summary(report([])) == "no problems in 3 images with 7 objects"


def test_page_is_bounded() -> None:
    page = data_page(
        report([problem("tiny", "warning", n, "small") for n in range(MOST_ROWS + 5)]), {}, b"", b""
    )
    assert page.count("<tr><td>") == MOST_ROWS
    assert "and 5 more, see problems.txt" in page
