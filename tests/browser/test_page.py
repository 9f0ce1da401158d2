"""The page of a study as a person uses it: with a pointer, with a keyboard, on a phone, on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dbf_ray.reports.page import Source, study_page
from dbf_ray.tracking.studies import read_study
from tests.synthetic_study import synthetic_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

both = pytest.mark.parametrize("width", [1440, 360])
CHIPS = "#chosen button"
STRIPS = "document.getElementById('timelines').data.filter(trace => trace.type === 'heatmap')"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study with every kind of trial."""
    folder = tmp_path_factory.mktemp("studies") / "ships"
    synthetic_study(folder, 16, 12, seeds=2, running=1, failed=1, every=2, draws=200)
    page = folder / "pareto.html"
    page.write_text(study_page([Source(*read_study(folder))]), encoding="utf-8")
    return page


@pytest.fixture
def width() -> int:
    """Of the window, in pixels."""
    return 1440


@pytest.fixture
def page(browser: Browser, file: Path, width: int) -> Iterator[Page]:
    """It is opened, and nothing goes wrong or asks for the network."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith("file:") else None)
    page.goto(file.as_uri())
    page.wait_for_selector("#scatter .points path")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "scrolls sideways"
    context.close()
    assert [text for text in wrong if not text.startswith(("blob:", "data:"))] == []


def column(page: Page, title: str) -> list[str]:
    heads = page.locator("thead th").all_inner_texts()
    place = next(place for place, head in enumerate(heads) if head.split() == title.split())
    return page.locator(f"tbody tr > :nth-child({place + 1})").all_inner_texts()


def click_point(page: Page, setting: str) -> None:
    """Click where a trial's point is drawn."""
    x, y = page.evaluate(
        """name => {
          const row = rows.find(row => row.name === name), plot = document.getElementById("scatter");
          const area = plot.querySelector(".nsewdrag").getBoundingClientRect();
          const {xaxis, yaxis} = plot._fullLayout;
          return [area.x + xaxis.l2p(row.x), area.y + yaxis.l2p(row.y)];
        }""",
        setting,
    )
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)
    page.wait_for_selector(".hovertext")
    page.mouse.click(x, y)


@both
def test_a_click_on_a_point_shows_its_timeline(page: Page) -> None:
    before = page.locator(CHIPS).all_inner_texts()
    assert {"full ×", "frozen ×"} <= set(before)
    assert len(before) <= 4
    page.locator("#scatter").scroll_into_view_if_needed()
    click_point(page, "step(rho=2)")
    page.wait_for_function(f"document.querySelectorAll('{CHIPS}').length === {len(before) + 1}")
    assert page.locator(CHIPS).last.inner_text() == "step(rho=2) ×"
    strip: dict[str, Any] = page.evaluate(f"{STRIPS}.at(-1)")
    assert strip["z"] == [[1, 0] * 6] * 4, "stages x epochs of step(2)"
    assert "step(rho=2)" in (page.locator("#timelines .annotation-text").last.text_content() or "")
    button = page.get_by_role("button", name="timeline of step(rho=2)", exact=True)
    assert button.get_attribute("aria-pressed") == "true"
    page.locator(CHIPS).last.click()
    assert page.evaluate(f"{STRIPS}.length") == len(before)
    assert button.get_attribute("aria-pressed") == "false"
    assert page.locator("#said").inner_text() == "step(rho=2) removed from the timelines"


@both
def test_the_table_sorts_by_a_heading(page: Page) -> None:
    head = page.locator("thead th", has_text="map50").first
    assert head.get_attribute("aria-sort") == "none"
    for arrow, sign in (("descending", -1), ("ascending", 1)):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == arrow
        shown = column(page, "map50")
        numbers = [float(text) for text in shown if text != "–"]
        assert numbers == sorted(numbers, key=lambda number: sign * number)
        assert shown[-2:] == ["–", "–"], "what is not known comes last"
    assert page.locator('th[aria-sort="ascending"]').count() == 1


@both
def test_the_table_filters_by_words_and_figures(page: Page) -> None:
    field = page.get_by_label("Filter")
    for text, kept in (
        ("step front", lambda row: "step" in row and "front" in row),
        ("compute_ratio<0.75 map50>0.6", lambda row: "dominated" in row or "front" in row),
        ("rho=4", lambda row: "rho=4" in row),
        ("FAILED", lambda row: "failed" in row),
    ):
        field.fill(text)
        found = page.locator("tbody tr").all_inner_texts()
        assert found, text
        assert all(kept(row) for row in found), text
        assert len(found) < 16
        assert page.locator("#count").inner_text() == f"{len(found)} of 16 trials"
    field.fill("compute_ratio<0.75 map50>0.6")
    assert all(float(text) < 0.75 for text in column(page, "compute_ratio"))
    field.fill("")
    assert page.locator("tbody tr").count() == 16


@both
def test_a_command_is_copied(page: Page) -> None:
    button = page.get_by_role("button", name="copy the command of step(rho=3)", exact=True)
    button.click()
    page.wait_for_function("document.getElementById('said').textContent === 'command copied'")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"dbf train --config .*ships/config.yaml .*--freezing.rho 3 --name ships-\d+", copied)
    page.evaluate("delete Navigator.prototype.clipboard")  # as on a page from plain http
    page.get_by_role("button", name="copy the command that trains it").click()
    page.wait_for_function("document.querySelector('#answer button').textContent === 'copied'")


def test_all_can_be_done_with_a_keyboard(page: Page) -> None:
    page.get_by_label("Filter").focus()
    page.keyboard.type("rho=5")
    for _ in range(20):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
        if focused == "timeline of step(rho=5)":
            break
    assert focused == "timeline of step(rho=5)"
    page.keyboard.press("Enter")
    assert page.locator(CHIPS).last.inner_text() == "step(rho=5) ×"
    assert page.evaluate(
        "[...document.querySelectorAll('button, input, [role=img]')].filter(one => !one.hidden)"
        ".every(one => one.textContent || one.getAttribute('aria-label') || one.labels?.length)"
    )


def test_what_a_setting_costs_and_what_a_seed_changes(page: Page) -> None:
    drawn = page.locator("#costs > div").evaluate_all("all => all.map(one => [one.id, one.data[0].x.length])")
    assert drawn == [[f"cost-{key}", 14] for key in ("executed_flops", "device_seconds", "peak_memory_bytes")]
    assert "bytes sent by all-reduce" in page.locator("#no-costs").inner_text()
    means, seeds = page.evaluate("document.getElementById('seeds').data.map(trace => trace.x.length)")
    assert seeds == 2 * means > 2
    points = page.evaluate("document.getElementById('history').data[0].x")
    assert points == sorted(points)
    assert len(points) == 14


def test_on_paper_figures_fit_and_commands_are_written_out(page: Page) -> None:
    figures = "[...document.querySelectorAll('.main-svg')]"
    right = f"Math.max(...{figures}.map(one => one.getBoundingClientRect().width))"
    page.evaluate(
        "window.addEventListener('beforeprint', () => { window.printed = RIGHT; })".replace("RIGHT", right)
    )
    assert page.evaluate(right) > 1000
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    assert 300 < page.evaluate("window.printed") <= 700, "A4 has 794 px with its margins"
    page.wait_for_function(f"{right} > 1000")
    page.emulate_media(media="print")
    assert page.locator("td.line code").first.is_visible()
    assert page.locator("button:visible").count() == page.locator("thead button:visible").count()


def test_without_epochs_and_without_trials_it_says_so(browser: Browser, tmp_path: Path) -> None:
    from dbf_ray.reports import study_result

    rows = [{"number": 0, "state": "RUNNING", "policy": "full"}]
    for name, trials, said in (("some", rows, "no trial's epochs are known here"), ("none", [], "0 trials")):
        (tmp_path / f"{name}.html").write_text(study_page([Source(study_result(name, trials), {})]))
        page = browser.new_page()
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.goto((tmp_path / f"{name}.html").as_uri())
        assert "no finished trial yet" in page.locator("#scatter").inner_text()
        assert said in page.locator("main").inner_text()
        page.close()
