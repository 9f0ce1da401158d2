"""Runs on real servers: MLflow's over sqlite, and over PostgreSQL with files in an S3-compatible store."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dbf_ray.tracking.links import experiment_tags
from tests.synthetic_study import synthetic_study
from tests.tracking.logged_study import log_study
from tests.tracking.servers import mlflow_server, names_in, postgres, postgres_programs, s3


@pytest.fixture(params=["sqlite", pytest.param("postgres-s3", marks=pytest.mark.slow)])
def server(request, empty_database, tmp_path) -> Iterator[tuple[str, dict[str, str]]]:
    """The URI, and what finds the store of files (empty where that is a folder)."""
    if request.param == "sqlite":
        with mlflow_server(tmp_path, f"sqlite:///{empty_database}", str(tmp_path / "files")) as (uri, _):
            yield uri, {}
        return
    for package in ("psycopg2", "boto3", "moto"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the package {package}, which is not installed")
    if (programs := postgres_programs()) is None:
        pytest.skip("needs PostgreSQL's programs (Debian: postgresql), which are not installed")
    with (
        postgres(programs) as database,
        s3("files") as environment,
        mlflow_server(tmp_path, database, "s3://files/mlflow", environment) as (uri, _),
    ):
        yield uri, environment


def test_a_study_and_its_files_arrive(server, tmp_path):
    uri, environment = server
    result = synthetic_study(folder := tmp_path / "studies" / "small", 4, 4)
    experiment = log_study(uri, folder)
    client, kind = MlflowClient(uri), "tags.`dbf_ray.kind` = '{}'"
    assert set(experiment_tags("search")) <= set(client.get_experiment(experiment).tags)
    trials = client.search_runs([experiment], kind.format("trial"), order_by=["metrics.`val/map50` DESC"])
    wanted = sorted((row["map50"] for row in result["trials"]), reverse=True)
    assert [run.data.metrics["val/map50"] for run in trials] == pytest.approx(wanted)
    steps = [metric.step for metric in client.get_metric_history(trials[0].info.run_id, "val/map50")]
    assert steps == list(range(len(steps)))
    assert len(steps) > 1
    (search,) = client.search_runs([experiment], kind.format("search"))
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {search.info.run_id}
    page = client.download_artifacts(search.info.run_id, "pareto.json", str(tmp_path))
    assert Path(page).read_bytes() == (folder / "pareto.json").read_bytes()
    if environment:
        assert any(name.endswith("artifacts/pareto.json") for name in names_in("files", environment))
