"""A study out of MLflow: the same files as its folder has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dbf_ray.cli import compare
from dbf_ray.cli.options import run_command
from dbf_ray.errors import DataError
from dbf_ray.tracking import read_epochs
from dbf_ray.tracking.fetch import fetch_study, study_names
from dbf_ray.tracking.studies import read_study
from tests.synthetic_study import synthetic_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study with further seeds and a trial that has just begun."""
    synthetic_study(tmp_path / "elsewhere" / "ships", 7, 6, seeds=2, running=1, draws=50)
    (tmp_path / "elsewhere" / "ships" / "trials" / "6" / "epochs.jsonl").unlink()
    return tmp_path / "elsewhere" / "ships"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store, and the folder of its file; the database is made once."""
    place = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{place / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri)
    return place, uri


def log_study(uri: str, place: Path, folder: Path, pareto: bool = True) -> None:
    """What a search leaves in a store, as far as it matters here."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment(folder.name, (place / "artifacts" / folder.name).as_uri())
    parent = client.create_run(experiment, tags={"dbf_ray.kind": "search"}, run_name=folder.name).info.run_id
    if pareto:
        client.log_artifact(parent, str(folder / "pareto.json"))
    for run in sorted((folder / "trials").iterdir()):
        number, _, seed = run.name.partition("-seed-")
        tags = {"dbf_ray.trial": number, "dbf_ray.seed": seed or "0", "mlflow.parentRunId": parent}
        child = client.create_run(experiment, tags=tags, run_name=run.name).info.run_id
        if (run / "epochs.jsonl").exists():
            client.log_artifact(child, str(run / "epochs.jsonl"))


def test_a_study_comes_back_as_it_was(
    folder: Path, empty: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, uri = empty
    log_study(uri, place, folder)
    assert study_names(uri) == ["ships"]
    into = fetch_study(uri, "ships", tmp_path / "into")
    assert read_study(into) == read_study(folder)
    assert len(read_study(into)[1]) == 6 + 5, "trials and further seeds, without the one that has no epochs"
    assert read_epochs(into / "trials" / "0-seed-1") == read_epochs(folder / "trials" / "0-seed-1")
    monkeypatch.chdir(tmp_path)
    arguments = ["--study", "ships", "--tracking.uri", uri, "--out", "page.html", "--json"]
    assert run_command(compare.command, arguments) == 0
    assert run_command(compare.command, ["--study", str(folder), "--out", "local.html"]) == 0
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "local.html").read_bytes()


def test_what_a_store_has_not(
    folder: Path, empty: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, uri = empty
    folder = folder.rename(folder.with_name("planes"))
    log_study(uri, place, folder, pareto=False)
    with pytest.raises(
        DataError, match=r"must have the study plaens, and has .*planes.*; did you mean planes\?"
    ):
        fetch_study(uri, "plaens", tmp_path / "a")
    with pytest.raises(
        DataError, match=r"planes in MLflow .* must have a pareto.json, .* \(its search is RUNNING\)"
    ):
        fetch_study(uri, "planes", tmp_path / "b")
    MlflowClient(tracking_uri=uri).create_experiment("single runs")
    assert "single runs" not in study_names(uri)
    assert json.loads((folder / "pareto.json").read_text())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("scheme", ["sqlite:///{}/none.db", "http://127.0.0.1:1", "sqlite:///{}/broken.db"])
def test_a_store_that_cannot_be_reached(
    tmp_path: Path, scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.db").write_text("this is no database" * 100)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        study_names(scheme.format(tmp_path))
    assert "\n" not in str(caught.value)
    assert any(words in str(caught.value) for words in ("cannot be reached", "must be there"))
    assert sorted(tmp_path.rglob("*")) == before
    assert capsys.readouterr().err == ""
