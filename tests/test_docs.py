"""What all Markdown keeps: a line's width, and links that lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WIDTH = 110  # without tables, code blocks and what links lead to

LINK = re.compile(r"(?<=\])\(([^()\s]+)\)")
CODE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page with its code blocks blanked, line for line."""
    return CODE.sub(lambda block: "\n" * block[0].count("\n"), page.read_text())


def anchors(page: Path) -> set[str]:
    """What ``#...`` may name in a page: its headings in GitHub's spelling."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Links of a page to files and headings that are not there; addresses of the web are not looked up."""
    wrong = []
    for link in LINK.findall(prose(page)):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not re.match(r"\w+:", link) and (
            not target.exists() or (anchor and anchor not in anchors(target))
        ):
            wrong.append(link)
    return wrong


def too_wide(page: Path) -> list[int]:
    lines = LINK.sub("", prose(page)).splitlines()
    return [number for number, line in enumerate(lines, 1) if len(line) > WIDTH and not line.startswith("|")]


def test_there_are_pages_to_check() -> None:
    assert {"README.md", "results.md", "hrsc2016.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_110_wide_and_its_links_resolve(page: Path) -> None:
    assert too_wide(page) == []
    assert broken(page) == []


def test_what_is_broken_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A b's `c`\n[x](gone.md) [y](#a-bs-c) [z](page.md#no)\n```\n[w](gone.md)\n```\n| "
        + "t" * 200
        + "\n"
        + "w" * 111
        + "\n"
    )
    assert broken(page) == ["gone.md", "page.md#no"]
    assert too_wide(page) == [7]


@pytest.mark.parametrize(
    "file", sorted((ROOT / "docs" / "pictures").glob("*.py")), ids=lambda file: file.stem
)
def test_what_draws_a_picture_can_still_be_imported(file: Path) -> None:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
