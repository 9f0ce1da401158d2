"""How long MLflow's experiment page takes for a large study: ``python -m benchmarks.mlflow_size``.

A made-up study is delivered to ``mlflow server`` over sqlite as a search does; then headless Chromium opens
the page by the link that a search prints, three times, each as a new visitor. Printed are seconds, as JSON:
until the server has everything, until rows stand in the table, until the charts are drawn.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.chromium import chromium
from tests.synthetic_study import synthetic_study
from tests.tracking.logged_study import log_study
from tests.tracking.servers import mlflow_server

ROWS = ".ag-center-cols-container .ag-row"
CHARTS = ".parcoords svg"


def measure(trials: int, epochs: int, repeats: int = 3) -> dict[str, Any]:
    """The figures for a study of so many trials and epochs."""
    from mlflow import MlflowClient

    from dbf_ray.tracking.links import SEARCH, study_links, view_link

    with TemporaryDirectory() as name:
        folder = Path(name)
        study = folder / "studies" / "large"
        synthetic_study(study, trials, epochs)
        with mlflow_server(folder, f"sqlite:///{folder}/mlflow.db", str(folder / "files")) as (uri, _):
            began = time.perf_counter()
            experiment = log_study(uri, study)
            delivered = time.perf_counter() - began
            links = study_links(MlflowClient(uri), uri, study.name)
            pages = {
                "trials": (links["trials"], ROWS),
                "search": (view_link(uri, experiment, SEARCH), ROWS),
                "charts": (links["charts"], CHARTS),
            }
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
                shown = {
                    what: [round(_open(browser, *page), 2) for _ in range(repeats)]
                    for what, page in pages.items()
                }
                browser.close()
    return {"trials": trials, "epochs": epochs, "delivered": round(delivered, 1), "shown": shown}


def _open(browser: Browser, address: str, wanted: str) -> float:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    began = time.perf_counter()
    page.goto(address)
    page.locator(wanted).first.wait_for(timeout=120_000)
    seconds = time.perf_counter() - began
    page.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=50)
    options = parser.parse_args()
    print(json.dumps(measure(options.trials, options.epochs)))


if __name__ == "__main__":
    main()
