"""The answer in numbers and words: what is told, what is not resolvable, and when to train shorter."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from dbf_ray.reports import study_result
from dbf_ray.reports.plots import pareto_data, pareto_png
from dbf_ray.reports.tables import study_rows
from tests.reports.conftest import trial

Trials = list[dict[str, Any]]


def moved(trials: Trials, deviation: float) -> dict[int, dict[int, np.ndarray]]:
    """Each trial's accuracy on resampled images: what all have in common, and ``deviation`` of its own."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.02, 1000)
    return {
        row["number"]: {0: row["map50"] + common + rng.normal(0, deviation, 1000)}
        for row in trials
        if row["state"] == "COMPLETE" and row["map50"] == row["map50"]
    }


def with_controls(trials: Trials, *accuracies: float) -> Trials:
    return [
        *trials,
        *(
            trial(20 + place, "full", None, accuracy, share, role="control", epochs=round(12 * share))
            for place, (accuracy, share) in enumerate(zip(accuracies, (0.75, 0.5), strict=False))
        ),
    ]


def test_what_images_leave_open_is_said(trials: Trials) -> None:
    result = study_result("s", trials, resampled=moved(trials, 0.004))
    rows = {row["number"]: row for row in result["trials"]}
    assert rows[4]["front_probability"] < 0.01 < 0.9 < rows[3]["front_probability"]
    assert rows[0]["front_probability"] == pytest.approx(0.96, abs=0.03)  # .01 above step(2), paired
    low, high = rows[3]["accuracy_interval"]
    assert high - low == pytest.approx(2 * 1.645 * 0.0204, rel=0.1)
    assert result["knee"] == 3
    assert result["knee_probability"] > 0.9
    text = result["answer"]["text"]
    assert "; difference -0.0" in text
    assert " with 90 %)" in text
    assert "inside the noise" not in text
    assert "intervals and probabilities are over images alone" in text
    assert study_rows(result)[0][3].startswith("0.6")


def test_where_nothing_can_be_told_it_says_so_and_how_much_would_be_needed(trials: Trials) -> None:
    close = [
        trial(number, policy, rho, 0.60 + 0.004 * number, 0.6 + 0.1 * number)
        for number, (policy, rho) in enumerate(
            [("frozen", None), ("step", 8), ("step", 4), ("step", 2), ("full", None)]
        )
    ]
    result = study_result("s", close, resampled=moved(close, 0.03))
    assert result["knee"] is None
    assert result["within"]["number"] is None
    assert result["answer"]["number"] is None
    text = result["answer"]["text"]
    assert "The knee is not resolvable with these images and seeds: the likeliest," in text
    assert "not resolvable with these images and seeds; about " in text
    assert result["needed"]["within"]["images"] > 1
    assert "would be needed (estimated from the measured variances)" in text
    assert not any("recommended" in row[-1] for row in study_rows(result))


def test_a_difference_inside_the_noise_is_called_that(trials: Trials) -> None:
    trials[3]["map50"] = 0.637
    result = study_result("s", trials, resampled=moved(trials, 0.004))
    assert result["knee"] == 3
    assert ", inside the noise)" in result["answer"]["text"]


def test_seeds_are_in_the_answer(trials: Trials) -> None:
    for row in trials[:4]:
        row["seeds"] = [
            {**row, "seed": seed, "map50": row["map50"] + 0.01 * seed + 0.001 * (row["number"] == seed)}
            for seed in (1, 2)
        ]
    result = study_result("s", trials)
    assert result["noise"]["seeds"] == 3
    assert result["noise"]["freedom"] == 3 * 2
    assert result["noise"]["seed_sd"] == pytest.approx(0.0006, abs=0.0003)
    full, lone = result["trials"][0], result["trials"][4]
    assert full["accuracy_mean"] == pytest.approx(0.65, abs=1e-3)
    assert lone["accuracy_mean"] == pytest.approx(0.51, abs=1e-3)  # as if its seeds had been as lucky
    assert "Of some trials nothing is known of single images" in result["answer"]["text"]


def test_a_shorter_full_training_that_is_better_is_the_answer(trials: Trials) -> None:
    rows = with_controls(trials, 0.639, 0.62)
    result = study_result("s", rows, resampled=moved(rows, 0.002))
    assert result["controls"] == [21, 20, 0]
    step = result["trials"][3]
    above = step["above_shorter"]["compute_ratio"]
    assert above["probability"] < 0.01
    assert above["gain"] == pytest.approx(0.60 - (0.62 + 0.8 * 0.019), abs=1e-6)
    assert result["answer"]["text"].startswith("Train shorter instead: ")
    assert "full with 9 epochs (trial 20): 25 % less training compute" in result["answer"]["text"]
    alone = study_result("s", trials)
    assert (result["reference"], result["ideal"]) == (
        alone["reference"],
        alone["ideal"],
    )  # they are no baselines


def test_a_schedule_that_beats_shorter_trainings_is_called_by_name(trials: Trials) -> None:
    rows = with_controls(trials, 0.50, 0.40)
    result = study_result("s", rows, resampled=moved(rows, 0.002))
    text = result["answer"]["text"]
    assert text.startswith(
        "Better than a full training cut short, by FLOPs: step(rho=2), step(rho=4); better by seconds: "
    )
    assert study_rows(result)[1][7].startswith("1.00, ")


def test_of_many_schedules_five_are_named(trials: Trials) -> None:
    more = [trial(30 + one, "step", 20 + one, 0.55 + 0.005 * one, 0.62 + 0.01 * one) for one in range(8)]
    rows = with_controls([*trials, *more], 0.40, 0.30)
    text = study_result("s", rows, resampled=moved(rows, 0.002))["answer"]["text"]
    assert text.count("by FLOPs (") == 5
    assert " more see the table)" in text
    assert re.match("Better than a full training cut short, by FLOPs: .* and [0-9]+ more", text)


def test_the_pictures_show_it(trials: Trials) -> None:
    rows = with_controls(trials, 0.62, 0.55)
    data = pareto_data(study_result("s", rows, resampled=moved(rows, 0.01)))
    assert data.uncertainty.shorter == ((0.5, 0.55), (0.75, 0.62), (1.0, 0.64))
    assert len(data.uncertainty.bars) == len(data.points) == 7
    assert [point.label for point in data.points][-2:] == ["9 epochs", "6 epochs"]
    assert len(pareto_png(data, dpi=60)) > 1000
