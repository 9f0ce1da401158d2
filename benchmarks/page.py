"""Times the page of a large synthetic study: read and built, then opened and drawn in a headless Chromium.

Run from the repository's root, on a machine with nothing else to do:
``python -m benchmarks.page [--trials 100] [--epochs 50] [--seeds 1]``
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from dbf_ray.reports.page import Source, page_data, page_html, study_page
from dbf_ray.tracking.studies import read_study
from tests.synthetic_study import synthetic_study

DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
ROUNDS = 5


def build(folder: Path) -> float:
    """Seconds to read a study and write its page."""
    begun = time.perf_counter()
    (folder / "page.html").write_text(study_page([Source(*read_study(folder))]), encoding="utf-8")
    return time.perf_counter() - begun


def opened(page: Path, width: int) -> list[float]:
    """Seconds to open and draw a page, a new one each time."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as driver:
        program = shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(ROUNDS):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            begun = time.perf_counter()
            tab.goto(page.as_uri())
            tab.evaluate(DRAWN)
            found.append(time.perf_counter() - begun)
            tab.close()
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "large"
        synthetic_study(folder, options.trials, options.epochs, seeds=options.seeds)
        seconds = [build(folder) for _ in range(ROUNDS)]
        own = len(page_html(page_data([Source(*read_study(folder))]), plotly="").encode())
        print(f"{options.trials} trials x {options.epochs} epochs: built in {median(seconds):.2f} s")
        print(f"size: {own / 1e6:.2f} MB beside plotly's script")
        for width in (1440, 360):
            found = opened(folder / "page.html", width)
            spread = f"({min(found):.2f} to {max(found):.2f})"
            print(f"{width} px: opened and drawn in {median(found):.2f} s {spread}")


if __name__ == "__main__":
    main()
