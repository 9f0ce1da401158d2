"""A finished study in MLflow's UI, as a person sees it: opened by the links that a search prints.

``SCREENSHOTS`` in the environment names a folder that keeps what the browser showed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from dbf_ray.tracking.links import COST, SEARCH, SETTINGS, study_links, view_link
from tests.synthetic_study import synthetic_study
from tests.tracking.logged_study import log_study
from tests.tracking.servers import mlflow_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

WIDTHS = (1440, 360)
ROW = ".ag-center-cols-container .ag-row"
NAME = ".ag-pinned-left-cols-container [col-id='attributes.`Run Name`']"
ACCURACY = "val/map50"
PARALLEL, POINTS = ".parcoords svg", ".scatterlayer .point"


class Study:
    """A study on a server, and what it holds.

    Attributes:
        uri: the server's.
        experiment: its id.
        result: content of pareto.json.
        links: as a search prints them.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.result = uri, synthetic_study(folder, 7, 6, seeds=2)
        self.experiment = log_study(uri, folder)
        self.links = study_links(MlflowClient(uri), uri, folder.name)

    def best_first(self) -> list[float]:
        """map50 of all trainings."""
        runs = [run for row in self.result["trials"] for run in (row, *row["seeds"])]
        return sorted((run["map50"] for run in runs), reverse=True)


@pytest.fixture(scope="module")
def study(browser: Browser, empty_database: Path, tmp_path_factory: Any) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("mlflow-ui")
    (folder / "server.db").write_bytes(empty_database.read_bytes())
    with mlflow_server(folder, f"sqlite:///{folder}/server.db", str(folder / "files")) as (uri, _):
        yield Study(uri, folder / "studies" / "demo")


@pytest.fixture(params=WIDTHS)
def page(request: Any, browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """A page that a person who is new to MLflow opens; what it showed at last is kept."""
    shown = browser.new_page(viewport={"width": request.param, "height": 1000})
    shown.set_default_timeout(60_000)
    yield shown
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    name = request.node.name.split("[")[0].removeprefix("test_")
    shown.screenshot(path=folder / f"{name}-{request.param}.png")
    shown.close()


def opened(page: Page, address: str, wanted: str) -> Locator:
    """Open an address, close the assistant that covers a third of a new person's page, and wait."""
    page.goto(address)
    found = page.locator(wanted)
    found.first.wait_for()
    if (assistant := page.locator("[data-component-id='mlflow.assistant.chat_panel.close']")).count():
        assistant.first.click()
    page.wait_for_timeout(500)
    return found


def names(page: Page) -> list[str]:
    """The run names in the table (a group's is hidden text as well)."""
    return [cell.inner_text().split("\n")[-1].strip() for cell in page.locator(NAME).all()]


def column(page: Page, name: str) -> list[str]:
    """The texts of a column, from above."""
    rows = page.locator(ROW).all()
    ordered = sorted(rows, key=lambda row: int(row.get_attribute("row-index") or 0))
    return [row.locator(f'[col-id="{name}"]').inner_text() for row in ordered]


@pytest.mark.parametrize("page", [1440], indirect=True)
def test_the_printed_link_lists_trials_best_first(page, study):
    rows = opened(page, study.links["trials"], ROW)
    headers = [cell.inner_text().strip() for cell in page.locator(".ag-header-cell").all()]
    for name in ("policy", "rho", "val/map50", "cost/compute_ratio", "dbf_ray.role"):
        assert name in headers
    assert rows.count() == len(study.best_first())
    shown = [float(text) for text in column(page, "metrics.`val/map50`")]
    assert shown == pytest.approx(study.best_first())
    assert column(page, "params.`policy`")[-1] == "frozen"
    assert "search · demo" not in names(page)


@pytest.mark.parametrize("page", [1440], indirect=True)
def test_a_click_on_a_header_sorts(page, study):
    opened(page, study.links["trials"], ROW)
    page.locator(".ag-header-cell[col-id='metrics.`cost/compute_ratio`']").click()
    page.wait_for_url("**orderByKey=metrics.%60cost**")
    page.wait_for_timeout(1500)
    shown = [float(text) for text in column(page, "metrics.`cost/compute_ratio`")]
    assert len(shown) > 3
    assert shown in (sorted(shown), sorted(shown, reverse=True))


@pytest.mark.parametrize("page", [1440], indirect=True)
def test_the_experiment_lists_the_search_and_its_trials_nested(page, study):
    rows = opened(page, view_link(study.uri, study.experiment, SEARCH), NAME)
    assert names(page) == ["search · demo"]
    rows.first.locator("button, [role=img]").first.click()
    page.wait_for_timeout(1500)
    found = names(page)
    assert found[0] == "search · demo"
    assert len(found) == 1 + len(study.best_first())
    assert any(name.startswith("step ρ=2 · ") for name in found)


@pytest.mark.parametrize("page", [1440], indirect=True)
def test_seeds_of_one_setting_become_a_row_with_means(page, study):
    opened(page, view_link(study.uri, study.experiment, SETTINGS), ROW)
    groups = [text for cell in page.locator(NAME).all() if "Group:" in (text := cell.inner_text())]
    assert len(groups) == len(study.result["trials"])
    assert sum(len(row["seeds"]) == 1 for row in study.result["trials"]) == sum(
        text.split()[-1] == "2" for text in groups
    )


@pytest.mark.parametrize("page", [1440], indirect=True)
def test_the_charts_show_accuracy_and_cost(page, study):
    opened(page, study.links["charts"], PARALLEL)
    page.locator(POINTS).first.wait_for()
    section = page.locator("[data-testid='draggable-chart-cards-grid']").first
    assert section.locator(".parcoords").count() == 2
    assert "cost/compute_ratio vs. val/map50" in section.inner_text()
    first = section.locator(".js-plotly-plot").first.locator(POINTS)
    assert first.count() == len(study.best_first())


@pytest.mark.parametrize("page", [1440], indirect=True)
def test_the_compare_page_draws_parallel_coordinates_and_scatter(page, study):
    runs = MlflowClient(study.uri).search_runs([study.experiment], "tags.`dbf_ray.kind` = 'trial'")
    named = quote(json.dumps([run.info.run_id for run in runs]))
    address = f"{study.uri}/#/compare-runs?runs={named}&experiments={quote(json.dumps([study.experiment]))}"
    opened(page, address, ".parcoords .axis-title")
    choices = page.locator("div:has(> div:text-is('Metrics:')) input")
    for choice, name in ((choices.first, "rho"), (choices.last, COST)):
        choice.click(force=True)
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
    page.locator(".parcoords .axis-title", has_text=COST).wait_for()
    axes = page.locator(".parcoords .axis-title").all_text_contents()
    assert {"policy", "rho", ACCURACY, COST} <= set(axes)
    page.get_by_role("tab", name="Scatter Plot").click()
    for axis, name in (("x", "rho"), ("y", ACCURACY)):
        page.locator(f"#{axis}-axis-selector").click()
        page.get_by_role("option", name=name, exact=True).click()
    page.locator(".ytitle", has_text=ACCURACY).wait_for()
    drawn = page.evaluate("document.querySelector('.js-plotly-plot').data[0].y.length")
    assert drawn == sum("rho" in run.data.params for run in runs) > 1


def test_the_answer_is_a_page_of_the_search(page, study):
    opened(page, study.links["answer"], "iframe")
    inside = page.frame_locator("iframe").first
    inside.locator(".js-plotly-plot").first.wait_for()
    assert "compute_ratio" in inside.locator("body").inner_text()


@pytest.mark.parametrize("page", [360], indirect=True)
def test_a_phone_shows_little_of_the_table(page, study):
    """MLflow's own layout; the study's own page is what a phone can show."""
    opened(page, study.links["trials"], "text=Runs")
    page.locator("text=Override saved view").wait_for()
    menu = page.get_by_role("link", name="Model registry").bounding_box()
    assert menu is not None
    assert menu["width"] > 150  # of 360 pixels
