"""A real search: real trainings on generated scenes, two at a time, with the search space that the project
ships.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient
from ray import cloudpickle

from dbf_ray.config import with_overrides
from dbf_ray.evaluation.matches import read_matches
from dbf_ray.run import run as real_run
from dbf_ray.search import search
from tests import tiny
from tests.detectors import narrow

RHO = Path(__file__).parents[2] / "search_spaces" / "rho.py"


for module in (sys.modules[__name__], tiny, narrow):  # which a worker cannot import
    cloudpickle.register_pickle_by_value(module)


def narrow_run(*arguments: Any, **options: Any) -> dict[str, Any]:
    """The real run, where the narrow backbone is known."""
    tiny.add_narrow()
    return real_run(*arguments, **options)


@pytest.mark.ray
@pytest.mark.usefixtures("narrow", "two_cpus")
def test_a_search_over_rho(uri, tmp_path):
    tracking = {"tracking__mlflow": True, "tracking__uri": uri}
    config = tiny.tiny_config(training__epochs=3, **tracking)
    said: list[str] = []
    options = {"study_name": "tiny", "studies_dir": tmp_path, "progress": said.append}
    first = search(config, RHO, trials=2, run=narrow_run, **options)
    assert (first["epochs_trained"], first["epochs_shared"]) == (6, 0)
    assert len(list((tmp_path / "tiny" / "states").iterdir())) == 1  # what full and step have in common
    result = search(config, RHO, trials=9, run=narrow_run, **options)

    trials = {(trial["policy"], trial["rho"]): trial for trial in result["trials"]}
    # all there are at 3 epochs
    assert set(trials) == {
        ("full", None),
        ("frozen", None),
        ("step", 2),
        ("step", 3),
    }
    assert {trial["state"] for trial in trials.values()} == {"COMPLETE"}
    costs = [
        trials[key]["compute_ratio"] for key in (("frozen", None), ("step", 3), ("step", 2), ("full", None))
    ]
    assert costs == sorted(set(costs))
    assert costs[-1] == 1.0
    assert result["front"]
    stored = json.loads((tmp_path / "tiny" / "data.json").read_text())
    assert {trial["data_digest"] for trial in trials.values()} == {stored["data_digest"]}
    assert any("no further setting" in line for line in said)
    assert said[-1].endswith("; 4 trials, 12 epochs, of which 9 were trained")
    assert (result["epochs_trained"], result["epochs_shared"]) == (9, 3)
    assert [trial["number"] for trial in result["trials"]] == [0, 1, 2, 3]
    assert sum(trial["epochs_trained"] for trial in trials.values()) == 9
    alone = search(
        with_overrides(config, {"search.kept_states": 0, "tracking.mlflow": False}),
        RHO,
        **{**options, "study_name": "alone", "trials": 9, "run": narrow_run},
    )
    assert (alone["epochs_trained"], alone["epochs_shared"]) == (12, 0)
    spent = {
        name: sum(trial[name] for trial in alone["trials"]) for name in ("executed_flops", "wall_seconds")
    }
    assert alone["own"]["executed_flops"] == spent["executed_flops"] > result["own"]["executed_flops"]
    assert alone["own"]["wall_seconds"] == pytest.approx(spent["wall_seconds"])
    states = {}  # what each distinct state cost, once
    for trial in trials.values():
        for epoch in map(json.loads, (Path(trial["run"]) / "epochs.jsonl").read_text().splitlines()):
            states.setdefault((epoch.get("inherited", f"tiny-{trial['number']}"), epoch["epoch"]), epoch)
    assert len(states) == 9
    assert result["own"]["executed_flops"] == sum(epoch["executed_flops"] for epoch in states.values())
    for trial in alone["trials"]:
        shared = trials[trial["policy"], trial["rho"]]
        for name in ("map50", "map50_95", "compute_ratio", "executed_flops", "epochs"):
            assert shared[name] == trial[name], name
    for trial in trials.values():
        records = [
            json.loads(line) for line in (Path(trial["run"]) / "epochs.jsonl").read_text().splitlines()
        ]
        assert [record["epoch"] for record in records] == [0, 1, 2]
        assert records[-1]["map50"] == pytest.approx(trial["map50"])  # the objective is the last epoch's

    for trial in trials.values():  # what was kept of single images is the evaluator's own figure, to the bit
        matches = read_matches(Path(trial["matches"]))
        assert matches is not None
        assert matches.metric("map50") == trial["map50"]
        assert trial["seeds"] == []
    more = with_overrides(config, {"search.seeds_on_front": 2, "tracking.mlflow": False})
    repeated = search(more, RHO, run=narrow_run, **{**options, "trials": 4})
    seeds = [run for trial in repeated["trials"] for run in trial["seeds"]]
    assert len(seeds) >= 2
    assert {(run["seed"], run["state"], run["epochs"]) for run in seeds} == {(1, "COMPLETE", 3)}
    assert repeated["epochs_trained"] == 9 + sum(run["epochs_trained"] for run in seeds)
    assert repeated["noise"]["seed_sd"] is not None

    assert ray.cluster_resources()["CPU"] == 2
    for _ in range(100):  # what a search held is free soon after it
        if ray.available_resources().get("CPU") == 2:
            break
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 2
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == 4
    for run in children:
        assert run.info.status == "FINISHED"
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val/map50")] == [
            0,
            1,
            2,
        ]
    forked = [run for run in children if "dbf_ray.forked_from" in run.data.tags]
    assert len(forked) == 2
    assert {run.data.tags["dbf_ray.fork_epoch"] for run in forked} == {"1", "2"}
    assert all(
        0 < run.data.metrics["cost/own_executed_flops"] < run.data.metrics["cost/executed_flops"]
        for run in forked
    )
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    found = parent.data.metrics
    assert (found["search/epochs_trained"], found["search/epochs_shared"]) == (9, 3)
    costs = {run.data.tags["dbf_ray.trial"]: run.data.metrics["cost/compute_ratio"] for run in children}
    assert costs == {str(trial["number"]): pytest.approx(trial["compute_ratio"]) for trial in trials.values()}
    tags = {(run.data.tags["dbf_ray.role"], run.data.tags["dbf_ray.setting"]) for run in children}
    assert tags == {
        ("baseline", "full"),
        ("baseline", "frozen"),
        ("setting", "step ρ=2"),
        ("setting", "step ρ=3"),
    }
    assert "step ρ=2 · retinanet-narrow · seed 0" in {run.info.run_name for run in children}
    assert parent.data.tags["mlflow.note.content"].startswith(result["answer"]["text"])
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files >= {"pareto.json", "pareto.png", "pareto.html", "trials.csv", "config.yaml", "rho.py"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("narrow", "two_cpus")
def test_trials_of_two_workers_share_their_beginnings_too(tmp_path):
    config = tiny.tiny_config(training__epochs=3, cluster__workers=2, search__keep="front")
    options = {"studies_dir": tmp_path, "progress": print, "run": narrow_run, "trials": 3}
    shared = search(config, RHO, study_name="shared", **options)
    assert (shared["epochs_trained"], shared["epochs_shared"]) == (8, 1)
    apart = with_overrides(config, {"search.kept_states": 0})
    alone = search(apart, RHO, study_name="alone", **options)
    assert (alone["epochs_trained"], alone["epochs_shared"]) == (9, 0)
    for one, two in zip(shared["trials"], alone["trials"], strict=True):
        for name in ("policy", "rho", "map50", "compute_ratio", "executed_flops"):
            assert one[name] == two[name], name
    assert shared["trials"][2]["forked_from"]["run"] == "shared-0"
    assert list((tmp_path / "shared" / "states").iterdir()) == []
    left = list((tmp_path / "shared" / "trials").glob("*/checkpoints/epoch-*"))
    assert {path.parents[1].name for path in left} == {"0", "1", *map(str, shared["front"])}
    assert {path.name for path in left} == {"epoch-00003"}
