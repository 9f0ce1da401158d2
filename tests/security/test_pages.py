"""Names of classes, files, runs and policies in our pages are text there, and nothing else."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.reports import study_result
from dbf_ray.reports.data_page import data_page
from dbf_ray.reports.page import Source, study_page

EVIL = (
    "<script>window.hurt=1</script><img src=x onerror=window.hurt=1>'\"><svg onload=window.hurt=1>"
    "</script><script>window.hurt=1</script><a href='javascript:window.hurt=1'>{x}</a>"
)


class Tags(HTMLParser):
    """Tags of a page, and what runs code or fetches in their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.active: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        found = [
            (name, value or "") for name, value in attrs if name.startswith("on") or name in ("src", "href")
        ]
        self.active += [(name, value) for name, value in found if not value.startswith("data:image/")]


def report(name: str) -> str:
    problem = {"kind": name, "severity": "error", "file": name, "line": None, "message": name}
    content = {"root": name, "format": name, "errors": 1, "warnings": 0, "images": 1, "objects": 1}
    return data_page({**content, "notes": [name], "problems": [problem]}, {name: name}, b"", b"")


def front(name: str) -> str:
    return study_page([Source(study_of(name), {})])


def study_of(name: str) -> dict[str, Any]:
    """What a study says in which every name is this one."""
    trials: list[dict[str, Any]] = [
        {"number": 0, "state": "COMPLETE", "policy": "full", "map50": 0.6, "compute_ratio": 1.0},
        {"number": 1, "state": "COMPLETE", "policy": name, "map50": 0.5, "compute_ratio": 0.7}
        | {"parameters": {name: name, "rho": 2}},
        {"number": 2, "state": "FAIL", "policy": name},
    ]
    result = study_result(name, trials)
    result["answer"]["text"] = name
    return result


PAGES = {"report": report, "front": front}


@pytest.mark.parametrize("page", PAGES)
def test_names_add_nothing_to_a_page(page: str) -> None:
    good, evil = Tags(PAGES[page]("good")), Tags(PAGES[page](EVIL))
    assert evil.tags == good.tags
    assert evil.active == good.active == []


def test_names_run_no_code_in_a_browser(tmp_path: Path, browser: Any) -> None:
    for name, make in PAGES.items():
        file = tmp_path / f"{name}.html"
        file.write_text(make(EVIL), encoding="utf-8")
        tab = browser.new_page()
        fetched: list[str] = []
        tab.on("request", lambda request, fetched=fetched: fetched.append(request.url))
        tab.goto(file.as_uri())
        tab.wait_for_timeout(500)
        assert tab.evaluate("window.hurt") is None, name
        assert tab.evaluate("document.querySelectorAll('a[href^=javascript], img[onerror]').length") == 0
        assert [url for url in fetched if not url.startswith(("file:", "data:", "blob:"))] == []
        assert "window.hurt=1" in tab.evaluate("document.body.textContent"), "it is shown as text"
        tab.close()
