"""The plain data of the Pareto picture and of the learning curves, and that what is drawn shows it."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dbf_ray.reports import study_result
from dbf_ray.reports.curves import learning_curves, learning_png
from dbf_ray.reports.plots import pareto_data, pareto_png, subtitle
from dbf_ray.reports.style import CLASSES, FRONT, REGION, RUNS, pale, policy_styles

Trials = list[dict[str, Any]]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)


def count(png: bytes, color: str) -> int:
    return int((pixels(png) == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(1).sum())


def test_pareto_data_holds_all_that_is_shown(trials: Trials) -> None:
    data = pareto_data(study_result("ships", trials))
    assert [point.number for point in data.points] == [0, 1, 2, 3, 4]
    assert [point.label for point in data.points] == ["full", "frozen", "ρ=2", "ρ=4", "ρ=8"]
    assert [point.on_front for point in data.points] == [True, True, True, True, False]
    assert [point.number for point in data.points if point.is_knee] == [3]
    assert [point.number for point in data.points if point.is_baseline] == [0, 1]
    assert data.unfinished == 2
    assert data.front == (
        (0.6, 0.3),
        (0.7, 0.3),
        (0.7, 0.6),
        (0.8, 0.6),
        (0.8, 0.63),
        (1.0, 0.63),
        (1.0, 0.64),
    )
    assert data.region[0] == data.region[-1] == (0.6, pytest.approx(0.266))
    assert data.region[-2] == (pytest.approx(1.04), pytest.approx(0.266))
    assert (
        subtitle(data)
        == "5 trials, 4 on the front, 2 failed or unfinished  ·  hypervolume 0.7569 (+0.5834 over the "
        "baselines alone)"
    )


def test_png_shows_region_front_and_policies(trials: Trials) -> None:
    png = pareto_png(pareto_data(study_result("ships", trials)), width=6, height=4, dpi=100)
    assert Image.open(io.BytesIO(png)).size == (600, 400)
    styles = policy_styles(["full", "frozen", "step"])
    for color in (REGION, FRONT, pale(styles["step"][0]), *(style[0] for style in styles.values())):
        assert count(png, color) > 10, color


def test_a_long_name_in_the_legend_is_whole(trials: Trials) -> None:
    for row in trials:
        if row["policy"] == "step":
            row["policy"] = "my_package.policies:Everyother"
    png = pareto_png(pareto_data(study_result("ships", trials)), dpi=60)
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert picture[:, :-4].min() < 100
    assert picture[:, -4:].min() > 200, "something is cut at the edge"


def test_png_without_a_complete_trial_still_is_a_picture() -> None:
    png = pareto_png(pareto_data(study_result("empty", [])), width=6, height=4, dpi=50)
    assert count(png, REGION) == 0
    assert pixels(png).std() > 0


def test_drawing_is_deterministic(trials: Trials) -> None:
    data = pareto_data(study_result("ships", trials))
    assert pareto_png(data, dpi=50) == pareto_png(data, dpi=50)


def record(epoch: int, map50: float | None, frozen: int, seconds: float | None = 10.0) -> dict[str, Any]:
    return {"epoch": epoch, "map50": map50, "frozen_stages": frozen, "device_seconds": seconds}


def test_learning_curves_from_records() -> None:
    records = [record(0, 0.1, 0), record(2, 0.3, 4, 5.0), record(1, 9.9, 0), record(1, None, 2, 8.0)]
    (curve,) = learning_curves({"step": records})
    assert curve.epochs == (0, 1, 2)
    assert curve.map50 == (0.1, pytest.approx(math.nan, nan_ok=True), 0.3)
    assert curve.seconds == (10.0, 18.0, 23.0)
    assert curve.frozen == (0.0, 0.5, 1.0)
    (deep,) = learning_curves({"step": records}, {"step": 8})
    assert deep.frozen == (0.0, 0.25, 0.5)


def test_learning_png_shows_each_run_and_what_was_frozen() -> None:
    runs = {name: [record(e, 0.05 * e, 4 * (e % 2)) for e in range(8)] for name in ("full", "step")}
    png = learning_png(learning_curves(runs), dpi=60)
    for color in (RUNS[0], RUNS[1], pale(RUNS[0], 0.12), pale(RUNS[1], 0.12)):
        assert count(png, color) > 20, color


@pytest.mark.parametrize("records", [[], [record(0, None, 0, None)], [record(0, 0.0, 0)]])
def test_learning_png_of_next_to_nothing(records: list[dict[str, Any]]) -> None:
    assert pixels(learning_png(learning_curves({"run": records}), dpi=40)).std() > 0


def test_policies_keep_their_colours_whatever_else_is_shown() -> None:
    assert policy_styles(["step"])["step"] == policy_styles(["random", "step", "full"])["step"]
    styles = policy_styles(["full", "frozen", "step", "a", "b", "c", "d", "e", "f"])
    assert len({style[0] for style in styles.values()}) == 9
    assert list(styles)[:3] == ["full", "frozen", "step"]
    assert pale("#000000", 0.0) == "#ffffff"
    assert pale(CLASSES[0], 1.0) == CLASSES[0]
