"""A tracking URI's user and password are used, and nowhere written or printed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.cli.search import closing
from dbf_ray.cluster.storage import require_storage
from dbf_ray.config import Config, load_config, save_config, to_dict, with_overrides
from dbf_ray.errors import ConfigError, ResourceError
from dbf_ray.run import mlflow_target, run, run_directory
from dbf_ray.tracking import JsonlTracker
from dbf_ray.uris import public
from tests.tiny import tiny_config

URI = "http://me:s3cret@127.0.0.1:9/x"
PUBLIC = "http://127.0.0.1:9/x"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (URI, PUBLIC),
        ("https://tok3n@host/", "https://host/"),
        ("postgresql+psycopg2://me:s3%40cret@host:5432/db", "postgresql+psycopg2://host:5432/db"),
        ("http://me:s3@cret@host", "http://host"),
        ("mysql://host/db?user=me&password=s3cret&x=1", "mysql://host/db?user=me&password=&x=1"),
        *(
            (same, same)
            for same in (PUBLIC, "sqlite:////a@b/x.db", "databricks", "http://host/me@x", "", "a@b")
        ),
    ],
)
def test_what_is_shown_of_a_uri(uri: str, shown: str) -> None:
    assert public(uri) == shown


def test_a_configuration_that_is_written_has_no_password(tmp_path: Path) -> None:
    config = with_overrides(load_config(None, {"tracking.uri": URI}), {"seed": 3})
    assert config.tracking.uri == URI  # it is still used
    assert to_dict(config)["tracking"]["uri"] == PUBLIC
    save_config(config, tmp_path / "config.yaml")
    assert "s3cret" not in (tmp_path / "config.yaml").read_text()


@pytest.mark.usefixtures("narrow")
def test_no_file_of_a_run_and_no_line_holds_the_password(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(runs_dir=str(tmp_path), tracking__uri=URI, training__epochs=1, tracking__mlflow=True)
    run(config, trackers=[JsonlTracker(run_directory(config))])
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"config.yaml", "record.json", "checkpoint.pt"} <= {file.name for file in files}
    assert [file for file in files if b"s3cret" in file.read_bytes()] == []
    assert "s3cret" not in "".join(capfd.readouterr())


def test_a_configuration_of_a_record_takes_the_password_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def used(uri: str | None, variable: str) -> Any:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
        target = mlflow_target(load_config(None, {"tracking.uri": uri}))
        assert target is not None
        return target.uri

    assert used(PUBLIC, URI) == URI
    assert used(None, URI) == URI
    assert used("http://other", URI) == "http://other"
    assert used("http://you:too@127.0.0.1:9/x", URI) == "http://you:too@127.0.0.1:9/x"


def test_what_a_search_says_in_the_end_has_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbf_ray.cli.search.text_table", lambda result: "")
    assert re.search(r"in MLflow: http://127\.0\.0\.1:9/x", closing({}, tmp_path, URI))
    assert "s3cret" not in closing({}, tmp_path, URI)


def test_a_study_stores_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbf_ray.search.optuna_study import open_study
    from dbf_ray.search.settings import Settings
    from dbf_ray.search.spaces import load_space
    from dbf_ray.search.study import Study
    from tests.search.begins import four_stages

    (tmp_path / "space.py").write_text(
        "BASELINES = [{'freezing.policy': 'full'}]\n"
        "def space(trial):\n    return {'seed': trial.suggest_int('seed', 0, 9)}\n"
    )
    config: Config = load_config(None, {"tracking.uri": URI})
    study = open_study(tmp_path / "study.db", "s", trials=2, seed=0)
    Study(study, load_space(tmp_path / "space.py"), Settings(config, four_stages))
    assert study.user_attrs["config"]["tracking"]["uri"] == PUBLIC
    assert [file for file in tmp_path.iterdir() if b"s3cret" in file.read_bytes()] == []


BLOCKED: dict[str, Callable[[Path], str]] = {
    "below a file": lambda place: str(place / "file" / "x"),
    "of no system": lambda place: "nosuch://bucket/x",
    "no bucket": lambda place: "s3://",
    "a zero": lambda place: f"{place}/a\0b",
}


@pytest.mark.parametrize("kind", BLOCKED)
def test_a_storage_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match=r"^cluster\.storage must be .* that can be written") as error:
        require_storage(BLOCKED[kind](tmp_path))
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


def test_a_storage_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbf_ray.cluster.train import absolute_paths

    monkeypatch.chdir(tmp_path)
    config = absolute_paths(load_config(None, {"cluster.storage": "a/b", "tracking.uri": URI}))
    assert config.cluster.storage == str(tmp_path / "a" / "b")
    assert config.tracking.uri == URI
    require_storage(config.cluster.storage)


def test_a_storage_is_made_and_left_empty(tmp_path: Path) -> None:
    require_storage(None)
    require_storage(str(tmp_path / "a" / "b"))
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]
    with pytest.raises(ConfigError, match=r"must be without keys, got s3://bucket/x with some") as error:
        require_storage("s3://AKIA:s3cret@bucket/x")
    assert "s3cret" not in str(error.value)
