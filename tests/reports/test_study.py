"""The content of pareto.json, in numbers and words, and the files of a study."""

from __future__ import annotations

import csv
import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbf_ray.errors import ConfigError
from dbf_ray.reports import hypervolume, study_result, write_study
from dbf_ray.reports import study as study_module
from dbf_ray.reports.objectives import Objectives
from dbf_ray.reports.pareto import Reference

Trials = list[dict[str, Any]]


def test_front_knee_and_hypervolume(trials: Trials) -> None:
    result = study_result("s", trials)
    assert list(result) == [
        "study",
        "objectives",
        "reference",
        "ideal",
        "hypervolume",
        "hypervolume_gain",
        "front",
        "front_posterior",
        "knee",
        "knee_probability",
        "within",
        "controls",
        "noise",
        "answer",
        "history",
        "epochs_trained",
        "epochs_shared",
        "own",
        "trials",
    ]
    assert result["objectives"] == {"map50": "maximize", "compute_ratio": "minimize"}
    assert result["reference"] == pytest.approx([0.266, 1.04])
    assert result["ideal"] == pytest.approx([0.64, 0.60])
    assert result["front"] == [0, 1, 2, 3]
    assert result["knee"] == 3
    whole = (0.64 - 0.266) * (1.04 - 0.60)
    of_baselines = 0.034 * 0.44 + 0.34 * 0.04
    expected = 0.034 * 0.44 + 0.30 * 0.34 + 0.03 * 0.24 + 0.01 * 0.04
    assert result["hypervolume"] == pytest.approx(expected / whole)
    assert result["hypervolume_gain"] == pytest.approx((expected - of_baselines) / whole)
    pairs = [(t["map50"], t["compute_ratio"]) for t in result["trials"] if t["state"] == "COMPLETE"]
    assert hypervolume(pairs, result["reference"]) / whole == pytest.approx(result["hypervolume"])
    assert hypervolume(pairs[1:], result["reference"]) < hypervolume(pairs, result["reference"]), "full adds"


def test_trials_are_compared_by_the_objectives_that_are_asked_for(trials: Trials) -> None:
    for row, (score, joules) in zip(trials, [(0.2, 9e3), (0.1, 5e3), (0.3, 8e3), (0.2, 7e3)], strict=False):
        row |= {"ap50/ship": score, "energy_joules": joules}
    result = study_result("s", trials, objectives=Objectives("ap50/ship", "energy_joules"))
    assert result["objectives"] == {"ap50/ship": "maximize", "energy_joules": "minimize"}
    assert result["front"] == [1, 2, 3]  # what has no energy is on none
    assert result["reference"] == pytest.approx([0.09, 9400])
    assert result["answer"]["text"].startswith(
        "step(rho=2) (trial 2): 11 % less energy than full fine-tuning (energy_joules 8.00 kJ) for 0.100 "
        "more ap50/ship (0.300 against 0.200)"
    )


def test_epochs_that_were_trained_are_told_from_those_of_others(trials: Trials) -> None:
    trials[0] |= {"epochs": 6, "epochs_trained": 6, "own": {"executed_flops": 6, "energy_joules": None}}
    trials[1] |= {"epochs": 6, "epochs_trained": 2}
    trials[5] |= {"epochs": 3, "epochs_trained": 1, "own": {"executed_flops": 1, "wall_seconds": 0.5}}
    result = study_result("s", trials)
    assert (result["epochs_trained"], result["epochs_shared"]) == (9, 6)
    assert result["own"] == {"executed_flops": 7, "device_seconds": 0, "wall_seconds": 0.5}


def test_history_follows_the_order_of_completion(trials: Trials) -> None:
    for row, hour in zip(trials, (3, 1, 2, 5, 4, 6, 0), strict=True):
        row |= {"completed": f"2026-01-01T0{hour}:00:00", "epochs_trained": 10}
    history = study_result("s", trials)["history"]
    assert [entry["trials"] for entry in history] == [1, 2, 3, 4, 5]
    assert [entry["epochs_trained"] for entry in history] == [20, 30, 40, 50, 60], "failed ones cost too"
    assert [datetime.fromtimestamp(entry["time"]).hour for entry in history] == [1, 2, 3, 4, 5]
    volumes = [entry["hypervolume"] for entry in history]
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(study_result("s", trials)["hypervolume"])
    assert study_result("s", trials[2:])["history"][-1]["hypervolume"] is None
    running = {"number": 9, "state": "RUNNING", "policy": "full", "epochs_trained": 3}
    assert study_result("s", [*trials, running])["history"] == history


def test_trials_are_whole_sorted_and_free_of_nan(trials: Trials) -> None:
    trials[2]["parameters"] = {"rho": np.int64(2), "weights": np.float32(0.5), "path": Path("a")}
    result = study_result("s", trials[::-1])
    assert [row["number"] for row in result["trials"]] == list(range(7))
    assert list(result["trials"][0])[:10] == [
        "number", "state", "policy", "parameters", "rho",
        "map50", "compute_ratio", "map50_best", "seed", "run",
    ]  # fmt: skip
    assert result["trials"][5]["map50"] is None
    assert result["trials"][2]["parameters"] == {"rho": 2, "weights": 0.5, "path": "a"}
    assert math.isnan(trials[5]["map50"]), "the caller's records were changed"
    json.dumps(result, allow_nan=False)


def test_missing_keys_are_none() -> None:
    (row,) = study_result("s", [{"number": 0, "state": "RUNNING", "policy": "full"}])["trials"]
    assert row["map50"] is row["rho"] is row["run"] is None
    assert row["parameters"] == {}


def test_answer_says_what_it_saves_and_costs(trials: Trials) -> None:
    answer = study_result("s", trials)["answer"]
    known = {"number": 3, "policy": "step", "parameters": {"rho": 4}, "rho": 4, "map50": 0.60}
    assert answer.items() >= (known | {"compute_ratio": 0.70}).items()
    assert answer["text"] == (
        "step(rho=4) (trial 3): 30 % less training compute than full fine-tuning (compute_ratio 0.700) for "
        "0.040 less map50 (0.600 against 0.640); measured: 210 s of training against 300 s. The "
        "cheapest that loses less than 0.005 map50 against the best: full (trial 0), compute_ratio 1.000. "
        "One seed, and nothing known of single images: differences may be chance."
    )


def test_answer_in_the_other_cases(trials: Trials) -> None:
    assert "full fine-tuning is the one to keep" in study_result("s", trials[:2])["answer"]["text"]
    assert "no complete run of full" in study_result("s", trials[1:])["answer"]["text"]
    trials[3] |= {"map50": 0.66, "device_seconds": None}
    better = study_result("s", trials)["answer"]["text"]
    assert "for 0.020 more map50 (0.660 against 0.640)." in better
    trials[3]["map50"] = 0.6401
    assert "for the same map50" in study_result("s", trials)["answer"]["text"]


def test_reference_is_behind_the_worst_of_the_baselines_there_are(trials: Trials) -> None:
    trials[0]["map50"] = 0.2
    assert study_result("s", trials)["reference"] == pytest.approx([0.19, 1.04])
    trials[0]["state"] = "FAIL"
    assert study_result("s", trials)["reference"] == pytest.approx(
        [0.27, 0.66]
    )  # a tenth of the one there is
    trials[2]["role"], trials[1]["role"] = "baseline", "control"
    assert study_result("s", trials)["reference"] == pytest.approx([0.567, 0.88])
    del trials[2]["role"]
    alone = study_result("s", trials[2:])
    assert alone["reference"] is alone["hypervolume"] is alone["hypervolume_gain"] is None
    assert alone["front"] == [2, 3]


def test_a_stored_reference_is_kept(trials: Trials) -> None:
    result = study_result("s", trials, Reference((0.1, 1.0), (0.6, 0.6)))
    assert (result["reference"], result["ideal"]) == ([0.1, 1.0], [0.6, 0.6])
    assert result["hypervolume"] == pytest.approx((0.2 * 0.4 + 0.3 * 0.3 + 0.03 * 0.2) / (0.5 * 0.4))


def test_study_without_a_complete_trial() -> None:
    result = study_result("s", [{"number": 0, "state": "FAIL", "policy": "full"}])
    assert (result["front"], result["knee"], result["answer"], result["hypervolume"]) == ([], None, {}, None)


def test_refuses_trials_that_cannot_be_told_apart(trials: Trials) -> None:
    with pytest.raises(ConfigError, match="trial numbers must be unique, got 0 twice"):
        study_result("s", [trials[0], trials[0]])
    with pytest.raises(ConfigError, match="got one without state, policy"):
        study_result("s", [{"number": 3}])


def test_files_of_a_study(trials: Trials, tmp_path: Path) -> None:
    result = study_result("ships <b>", trials)
    folder = tmp_path / "studies" / "s"
    written = write_study(result, folder)
    assert sorted(path.name for path in written) == sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in written) == ["pareto.html", "pareto.json", "pareto.png", "trials.csv"]
    assert json.loads((folder / "pareto.json").read_text()) == result
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["on_front"] for row in rows] == ["true"] * 4 + ["false"] * 3
    assert rows[3]["parameters"] == '{"rho": 4}'
    assert float(rows[3]["compute_ratio"]) == 0.7
    assert rows[5]["map50"] == ""
    assert float(rows[3]["device_seconds"]) == 210.0


def test_a_failure_leaves_the_earlier_files(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(study_result("first", trials), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(data: object) -> bytes:
        raise RuntimeError("no canvas")

    monkeypatch.setattr(study_module, "pareto_png", broken)
    with pytest.raises(RuntimeError, match="no canvas"):
        write_study(study_result("second", trials), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
