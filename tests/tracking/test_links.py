"""Views of a study's experiment, and where a search says that they are."""

from __future__ import annotations

import json

import pytest
from mlflow import MlflowClient

from dbf_ray.cli.in_mlflow import in_mlflow
from dbf_ray.tracking.links import experiment_tags
from dbf_ray.tracking.store import LONGEST_TEXT, Store

VIEW = "mlflow.sharedViewState."


@pytest.mark.parametrize(
    ("accuracy", "metric"), [("map50", "val/map50"), ("merged/map50", "merged/map50"), ("map75", "val/map75")]
)
def test_views_show_what_the_search_compares_by(accuracy, metric):
    tags = experiment_tags("search", accuracy)
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert {name.removeprefix(VIEW) for name in tags if name.startswith(VIEW)} == {
        "trials",
        "settings",
        "search",
    }
    assert all(len(text) <= LONGEST_TEXT for text in tags.values())
    state = json.loads(json.loads(tags[VIEW + "trials"])["state"])
    assert state["orderByKey"] == f"metrics.`{metric}`"
    assert f"metrics.`{metric}`" in state["selectedColumns"]
    assert {card["type"] for card in state["compareRunCharts"]} == {"SCATTER", "PARALLEL", "LINE"}


def test_a_view_that_a_person_changed_stays(uri):
    first, tags = Store(uri), experiment_tags("search")
    experiment = first.experiment("demo", tags)
    client = MlflowClient(uri)
    client.set_experiment_tag(experiment, VIEW + "trials", "mine")
    assert Store(uri).experiment("demo", tags) == experiment
    assert client.get_experiment(experiment).tags[VIEW + "trials"] == "mine"


def test_a_search_ends_with_command_and_links(uri):
    experiment = Store(uri).experiment("demo", experiment_tags("search"))
    run = MlflowClient(uri).create_run(experiment, tags={"dbf_ray.kind": "search"}).info.run_id
    command, trials, charts, answer = in_mlflow("demo", uri)
    assert "-m mlflow ui --backend-store-uri sqlite:///" in command
    assert f"http://127.0.0.1:5000/#/experiments/{experiment}/runs?viewStateShareKey=trials&" in trials
    assert charts.endswith("&compareRunsMode=CHART")
    assert f"/runs/{run}/artifacts/pareto.html?" in answer


def test_a_server_that_is_away_leaves_its_address_without_a_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert in_mlflow("demo", "http://me:secret@127.0.0.1:9") == ["compare in MLflow: http://127.0.0.1:9"]
