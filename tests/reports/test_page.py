"""What the page of a study shows, as plain data, and that it is one whole file."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from dbf_ray.errors import ConfigError
from dbf_ray.reports import study_result
from dbf_ray.reports.objectives import Objectives
from dbf_ray.reports.page import Source, page_data, page_html, study_page
from dbf_ray.reports.page.runs import run_data, shared_in_words
from dbf_ray.reports.plots import pareto_data
from dbf_ray.reports.style import policy_styles

Trials = list[dict[str, Any]]


def record(epoch: int, frozen: int = 0, map50: float | None = None, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, "frozen_stages": frozen, "map50": map50} | more


EPOCHS = {
    "trial_0": [record(0), record(1, map50=0.64)],
    "trial_1": [record(0, 4), record(1, 4, map50=0.3)],
    "trial_3": [record(0, inherited="s-0"), record(1, 4, map50=0.6)],
}


def shown(trials: Trials, **options: Any) -> dict[str, Any]:
    return page_data([Source(study_result("s", trials, **options), EPOCHS)])


def table(data: dict[str, Any]) -> list[dict[str, Any]]:
    keys = [column["key"] for column in data["columns"]]
    return [dict(zip(keys, row["cells"], strict=True)) for row in data["rows"]]


def test_every_trial_is_a_row_and_stands_where_the_picture_has_it(trials: Trials) -> None:
    data = shown(trials)
    assert [row["number"] for row in data["rows"]] == list(range(7))
    points = {point.number: point for point in pareto_data(study_result("s", trials)).points}
    for row in data["rows"]:
        point = points.get(row["number"])
        assert (row["x"], row["y"]) == ((None, None) if point is None else (point.cost, point.accuracy))
        assert point is None or (row["mark"] == "front") == point.on_front
    assert [row["mark"] for row in data["rows"]][:5] == ["front"] * 4 + ["dominated"]
    assert data["chosen"] == ["0/3", "0/0", "0/1"], "recommended, full, frozen"
    colors = {policy: style["color"] for policy, style in data["policies"].items()}
    assert colors == {policy: style[0] for policy, style in policy_styles(colors).items()}


def test_a_schedule_is_shown_first_even_where_none_is_recommended(trials: Trials) -> None:
    trials[3]["map50"] = trials[2]["map50"] = trials[4]["map50"] = 0.31
    result = study_result("s", trials)
    first = {row["first"]: row["number"] for row in page_data([Source(result, {})])["rows"]}
    assert first["schedule"] in (2, 3, 4)
    assert page_data([Source(result, {})])["chosen"] == [], "no epochs of theirs are known"


def test_cells_are_texts_with_what_they_are_sorted_by(trials: Trials) -> None:
    trials[2]["overrides"] = {
        "freezing.policy": "step",
        "freezing.rho": 2,
        "training.backbone_lr_factor": 0.1,
    }
    cells = table(shown(trials))
    assert cells[2]["setting"] == ("step(rho=2), backbone_lr_factor=0.1",) * 2
    assert cells[3]["map50"] == ("0.6000", 0.6)
    assert cells[3]["rho"] == ("4", 4)
    assert cells[3]["standing"][0] == "front, recommended"
    assert cells[0]["standing"][0] == "front, baseline"
    assert (cells[6]["standing"][0], cells[6]["map50"]) == ("failed", ("–", None))
    assert "val_map50" not in cells[0], "nothing is known of it"
    trials[0]["val_map50"] = 0.6
    assert table(shown(trials))[0]["val_map50"] == ("0.6000", 0.6)


def test_intervals_on_both_axes(trials: Trials) -> None:
    trials[3]["seeds"] = [
        {"seed": 1, "state": "COMPLETE", "map50": 0.62, "device_seconds": 230.0, "run": "x/3-seed-1"}
    ]
    luck = 0.02 * np.random.default_rng(0).standard_normal(200)
    moved = {row["number"]: {0: row["map50"] + luck} for row in trials[:5]}
    moved[3][1] = 0.62 + luck
    of = Objectives("map50", "device_seconds")
    row = shown(trials, resampled=moved, objectives=of)["rows"][3]
    assert row["span"] == (210.0, 230.0)
    assert row["x"] == 220.0
    assert row["interval"][0] < row["y"] < row["interval"][1]
    assert row["seeds"] == [[0, 0.60], [1, 0.62]]
    assert row["costs"]["device_seconds"] == (220.0, "220 s")
    assert shown(trials)["rows"][0]["span"] is shown(trials)["rows"][0]["interval"] is None


def test_runs_say_what_was_trained_when() -> None:
    half = record(2, 2, 0.5, steps_per_prefix={"0": 1, "2": 3})
    records = [record(1, 4, None, inherited="s-2-seed-1"), half, record(0, inherited="s-0")]
    run = run_data({"seed": 3}, records, "map50", 4)
    assert run == {
        "seed": 3,
        "epochs": [0, 1, 2],
        "accuracy": [None, None, 0.5],
        "trained": [[1, 0, 0.25], [1, 0, 0.25], [1, 0, 1], [1, 0, 1]],
        "inherited": 2,
    }
    assert shared_in_words(records, "s") == "epochs 0 to 1 trained by trials 2-seed-1, 0"
    assert shared_in_words(EPOCHS["trial_3"], "s") == "epoch 0 trained by trial 0"
    assert shared_in_words(EPOCHS["trial_0"], "s") == ""
    assert run_data({}, [], "map50", 4)["trained"] == []


def test_stages_of_a_running_study_are_those_that_were_frozen(trials: Trials) -> None:
    data = shown(trials)
    assert len(data["rows"][0]["runs"][0]["trained"]) == 4
    trials[0]["num_stages"] = 5
    assert len(shown(trials)["rows"][0]["runs"][0]["trained"]) == 5


def test_several_studies_stand_side_by_side(trials: Trials) -> None:
    one, other = study_result("a", trials), study_result("b", trials[:3])
    data = page_data([Source(one, {}), Source(other, {})])
    assert data["title"] == "a, b"
    assert [row["id"] for row in data["rows"]][-3:] == ["1/0", "1/1", "1/2"]
    assert [cells["study"][0] for cells in table(data)] == ["a"] * 7 + ["b"] * 3
    assert data["studies"][0]["color"] != data["studies"][1]["color"]
    assert data["comparable"] == "", "their baselines are equal"
    with pytest.raises(ConfigError, match="different names, got a, a"):
        page_data([Source(one, {}), Source(one, {})])
    assert page_data([Source(one, {}), Source(one, {}, "c/a")])["title"] == "a, c/a"
    dear = study_result("d", trials, objectives=Objectives("map50", "device_seconds"))
    with pytest.raises(ConfigError, match="a map50 and compute_ratio, d map50 and device_seconds"):
        page_data([Source(one, {}), Source(dear, {})])


def test_the_page_needs_no_network_and_escapes_names(trials: Trials) -> None:
    name = "a <script>alert(1)</script>"
    trials[3]["command"] = 'dbf train --name "</script><b>"'
    result = study_result(name, trials)
    page = study_page([Source(result, EPOCHS)])
    assert "<script>alert(1)" not in page
    assert "a &lt;script&gt;" in page
    assert page.count("</script>") == 3, "plotly's, the data, and what draws them"
    own = page_html(page_data([Source(result, EPOCHS)]), plotly="")
    assert len(page) - len(own) > 1_000_000, "plotly's script is not inside"
    assert re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=|https?://", own) == []
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert data["title"] == name
    assert data["rows"][3]["command"] == trials[3]["command"]


def test_the_answer_is_there_without_a_script(trials: Trials) -> None:
    page = page_html(shown(trials), plotly="")
    before = page[: page.index("<script")]
    assert "<b>Where the trade turns</b> step(rho=4) (trial 3): 30 % less training compute" in before
    assert "map50 against training compute" in before
    assert "No finished trial yet" in page_html(page_data([Source(study_result("s", []), {})]), plotly="")
