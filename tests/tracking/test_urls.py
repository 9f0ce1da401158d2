"""Databases in folders whose names hold signs that mean something in a URL."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from dbf_ray.errors import ConfigError
from dbf_ray.search.optuna_study import open_study
from dbf_ray.tracking import MlflowTarget, make_trackers, resolve_uri
from dbf_ray.tracking.urls import sqlite_file, sqlite_url

ODD = "a?b %23#c {x} é&d=1;e@f:g"
NAMES = ["plain", "a?b", "50%", "%3F", "a#b", "a b", "é{x}", "a&b=c", "x:y@z", "a'b\"c", "a\\b", "a+b", ODD]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"\xc4\xe3")])
def test_the_url_of_a_file_opens_that_file(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    url = sqlite_url(folder / "x.db")
    with create_engine(url).begin() as connection:
        connection.execute(text("create table t (x int)"))
    assert os.listdir(folder) == ["x.db"]
    assert os.listdir(tmp_path) == [name]
    assert sqlite_file(url) == folder / "x.db"


@pytest.mark.parametrize("name", ["a?b", "50%", ODD])
def test_a_study_is_in_its_own_folder_and_found_there_again(tmp_path: Path, name: str) -> None:
    file = tmp_path / name / "study.db"
    open_study(file, "s", trials=4, seed=0).set_user_attr("mark", 1)
    assert open_study(file, "s", trials=4, seed=0).user_attrs == {"mark": 1}
    assert [path.name for path in file.parent.iterdir()] == ["study.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_default_store_of_mlflow_and_its_artifacts_are_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path
) -> None:
    from mlflow import MlflowClient

    here = tmp_path / ODD
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "mlflow.db").write_bytes(empty_database.read_bytes())
    uri = resolve_uri(None, {})
    assert sqlite_file(uri) == here / "mlflow.db"
    assert resolve_uri(uri) == uri
    for tracker in make_trackers(here / "run", MlflowTarget(uri, "mine")):
        tracker.start({"name": "x"}, {}, 0)
        tracker.epoch({"epoch": 0, "map50": 0.5})
        tracker.finish({"map50": 0.5, "epochs": 1})
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert (run.info.status, run.data.metrics["val/map50"]) == ("FINISHED", 0.5)
    assert "config.yaml" in [file.path for file in client.list_artifacts(run.info.run_id)]
    assert list((here / "mlartifacts").rglob("config.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == [ODD]


def test_a_relative_path_and_options_of_a_url_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a?b").mkdir()
    monkeypatch.chdir(tmp_path / "a?b")
    uri = resolve_uri("sqlite:///sub%3F/m.db?timeout=5", {})
    assert sqlite_file(uri) == tmp_path / "a?b" / "sub?" / "m.db"
    assert uri.endswith("/m.db?timeout=5")


@pytest.mark.parametrize(
    "url", ["sqlite:///", "sqlite:///{}", "sqlite:///./", "sqlite+pysqlite:///{}/?timeout=5"]
)
def test_a_folder_is_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"must name a file, got the folder .*; give a file in it, as sqlite:"
    ):
        resolve_uri(url.format(tmp_path), {})
    assert sqlite_file(resolve_uri("sqlite:///mlflow.db", {})) == tmp_path / "mlflow.db"
