"""A detector in MLflow's registry: loaded and served it finds what its checkpoint does; names are guarded."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from numpy.typing import NDArray
from PIL import Image

import dbf_ray
from dbf_ray.cli import export as export_command
from dbf_ray.cli import search as search_command
from dbf_ray.cli import train as train_command
from dbf_ray.cli.options import run_command
from dbf_ray.config import Config, with_overrides
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.evaluate import config_of
from dbf_ray.export.card import model_card
from dbf_ray.export.register import check_register, register_checkpoint
from dbf_ray.export.weights import write_weights
from dbf_ray.predict.table import COLUMNS, TablePredictor, read_image
from dbf_ray.training.checkpoint import read_record
from tests.cli.conftest import make_root, tiny_options

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registered")


@pytest.fixture(scope="module")
def store(place: Path, empty_database: Path) -> str:
    (place / "mlflow.db").write_bytes(empty_database.read_bytes())
    return f"sqlite:///{place}/mlflow.db"


@pytest.fixture(scope="module")
def trained(place: Path, store: str) -> tuple[Path, list[str]]:
    """A run that has learned to find ships and was registered at its end; the lines that it printed."""
    options = [
        *tiny_options(make_root(place / "data"), place / "runs", "resnet18"),
        *("--name", "ships", "--tracking.mlflow", "true", "--tracking.uri", store, "--register", "ships"),
        *("--training.epochs", "14", "--evaluation.every", "7", "--training.lr", "2e-3"),
        *("--training.schedule", "cosine", "--training.warmup_steps", "4", "--data.flips", "[]"),
        *("--detector.anchor_ratios", "[2.0]", "--detector.anchor_scales", "[0.5, 1.0]"),
    ]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run_command(train_command.command, options) == 0
    return max((place / "runs" / "ships" / "checkpoints").iterdir()), printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def checkpoint(trained: tuple[Path, list[str]]) -> Path:
    return trained[0]


@pytest.fixture(scope="module")
def model(checkpoint: Path, store: str) -> Iterator[Any]:
    """Version 1, loaded as a person does it."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store)  # set_tracking_uri would leave it set
        yield mlflow.pyfunc.load_model("models:/ships/1")


@pytest.fixture(scope="module")
def images(place: Path, checkpoint: Path) -> list[Path]:
    return sorted((place / "data" / "val" / "images").iterdir())


def pixels(file: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(file).convert("RGB"))


def in_base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def rows_of(checkpoint: Path, images: list[Path]) -> list[list[Any]]:
    """What ``predict_images`` finds, as rows without the image's name."""
    return [
        [name, float(score), *box.tolist()]
        for found in dbf_ray.predict_images(checkpoint, images)
        for name, score, box in zip(found["names"], found["scores"], found["boxes"], strict=True)
    ]


def test_the_training_says_what_it_registered(trained: tuple[Path, list[str]], store: str) -> None:
    assert trained[1][-1] == "registered as models:/ships/1; mlflow.pyfunc.load_model loads it"
    client = MlflowClient(store, store)
    version = client.get_model_version("ships", "1")
    (run,) = client.search_runs([client.get_experiment_by_name("dbf_ray").experiment_id])
    assert version.run_id == run.info.run_id
    (output,) = run.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert logged.artifact_location == version.source
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "ships", "version": 1}]
    assert version.description.startswith("# ships\n")


def test_paths_arrays_and_what_goes_over_a_wire_give_one_table(
    model: Any, checkpoint: Path, images: list[Path]
) -> None:
    wanted = rows_of(checkpoint, images)
    assert len(wanted) >= 2
    assert max(row[1] for row in wanted) > 0.2
    kinds: dict[str, list[Any]] = {
        "paths": [str(file) for file in images],
        "arrays": [pixels(file) for file in images],
        "lists": [pixels(file).tolist() for file in images],
        "base64": [in_base64(file) for file in images],
        "mixed": [str(images[0]), pixels(images[1])],
    }
    for kind, given in kinds.items():
        table = model.predict(given)
        assert list(table.columns) == list(COLUMNS)
        got = table.drop(columns="image").to_numpy().tolist()
        assert [row[0] for row in got] == [row[0] for row in wanted], kind
        assert [row[1:] for row in got] == [pytest.approx(row[1:], abs=1e-4) for row in wanted], kind
        names = {"paths": kinds["paths"], "mixed": [kinds["paths"][0], "1"]}.get(kind, ["0", "1"])
        assert list(dict.fromkeys(table["image"])) == names


def test_parameters_are_the_predictors(model: Any, images: list[Path]) -> None:
    paths = [str(file) for file in images]
    every = model.predict(paths)
    some = model.predict(paths, params={"score": float(every["score"].median())})
    assert 0 < len(some) < len(every)
    assert some["score"].min() > every["score"].median()
    closer = model.predict(paths, params={"window": 32})
    assert not closer.equals(every)
    assert len(model.predict(paths, params={"score": 0.999})) == 0


def test_signature_example_and_card_are_there_and_nothing_is_pickled(
    model: Any, checkpoint: Path, place: Path
) -> None:
    signature = model.metadata.signature
    assert [column.name for column in signature.outputs.inputs] == list(COLUMNS)
    assert {param.name: param.default for param in signature.params.params} == {"score": 0.0, "window": 64}
    (folder,) = {file.parent for file in (place / "mlartifacts").rglob("MLmodel")}
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert {"served.py", "README.md", "input_example.json", "MLmodel"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".cloudpickle"))]
    inner = folder / "artifacts" / "checkpoint"
    state = torch.load(inner / "checkpoint.pt", weights_only=True)
    assert set(state) == {"model", "epoch"}
    assert all(isinstance(value, torch.Tensor) for value in state["model"].values())
    whole = torch.load(checkpoint / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(value, state["model"][name]) for name, value in whole["model"].items())
    assert config_of(inner).detector == config_of(checkpoint).detector
    example = json.loads((folder / "input_example.json").read_text())
    assert "inputs" in str(example)


def test_a_password_in_the_uri_stays_here(checkpoint: Path, tmp_path: Path) -> None:
    record = read_record(checkpoint)
    assert record["config"]["tracking"]["uri"]
    assert write_weights(checkpoint, tmp_path / "w")["config"]["tracking"]["uri"] is None
    assert "mlflow.db" not in (tmp_path / "w" / "record.json").read_text()


def test_the_card_says_data_policy_cost_metrics_limits(checkpoint: Path) -> None:
    record = read_record(checkpoint)
    card = model_card("ships", record, {"compute_ratio": 0.75})
    for words in (
        "rotated_retinanet on resnet18, trained with the freezing policy full for 14 epochs",
        "8 training images",
        "classes: ship",
        "resized to 64 px for each 64 px",
        "0 for 14",
        "over those of full fine-tuning: 0.750",
        "images that were held out: the split val",
        f"| map50 | {record['epochs'][-1]['map50']:.3f} |",
        "seed 0",
    ):
        assert words in card
    bare = model_card("bare", {key: record[key] for key in ("config", "classes", "window")}, {})
    assert "## Limits" in bare  # of an old or foreign record no more than is known


def test_the_same_checkpoint_is_registered_once_and_another_is_another_version(
    checkpoint: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_overrides(config_of(checkpoint), {"tracking.uri": store})
    again = register_checkpoint(checkpoint, config, "ships")
    assert (again["model"], again["new"]) == ("models:/ships/1", False)
    earlier = min(checkpoint.parent.iterdir())
    assert earlier != checkpoint
    arguments = ["--checkpoint", str(earlier), "--register", "ships", "--tracking.uri", store, "--json"]
    assert export_command.main(arguments) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["registered"]["version"], result["registered"]["new"]) == ("2", True)


def test_a_checkpoint_whose_run_is_not_in_the_store(checkpoint: Path, uri: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "epoch-00014"))
    config = with_overrides(config_of(copy), {"tracking.uri": uri})
    found = register_checkpoint(copy, config, "it's mine")
    assert (found["model"], found["new"]) == ("models:/it's mine/1", True)
    assert not register_checkpoint(copy, config, "it's mine")["new"]
    assert not MlflowClient(uri, uri).get_model_version("it's mine", "1").run_id


def asking(store: str, name: str | None, **changes: Any) -> Config:
    return with_overrides(
        Config(), {"tracking.uri": store, "tracking.registered_model_name": name, **changes}
    )


def test_names_that_cannot_be_are_refused_before(uri: str, tmp_path: Path) -> None:
    client = MlflowClient(uri, uri)
    client.create_registered_model("theirs")
    check_register(asking(uri, None))
    check_register(asking(uri, "new"))
    for name in ("a/b", "a:b", 'a"b', " ", "."):
        with pytest.raises(
            ConfigError, match=r"tracking\.registered_model_name must be a name without '/', ':' and"
        ):
            check_register(asking(uri, name))
    with pytest.raises(
        ConfigError, match=r"'theirs' is a registered model that it did not make.*give another"
    ):
        check_register(asking(uri, "theirs"))
    with pytest.raises(
        ConfigError,
        match=r"tracking\.registered_model_name needs MLflow, got 'a' with tracking\.mlflow false",
    ):
        check_register(asking(uri, "a", **{"tracking.mlflow": False}))
    check_register(asking(f"sqlite:///{tmp_path}/none.db", "a"))
    assert not (tmp_path / "none.db").exists()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """A server that is not there."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://user:secret@127.0.0.1:{one.getsockname()[1]}"


def test_a_store_that_is_away_costs_no_training(nowhere: str, checkpoint: Path) -> None:
    from dbf_ray.export.register import register_at_end

    config = asking(nowhere, "ships")
    with pytest.warns(
        UserWarning, match=r"whether the name 'ships' is free could not be asked .* at the end$"
    ):
        check_register(config)
    with pytest.warns(UserWarning, match="not registered: MLflow at") as caught:
        assert register_at_end(checkpoint, config) is None
    (line,) = [str(one.message) for one in caught]
    assert f"dbf export --checkpoint {checkpoint} --register ships" in line
    assert "secret" not in line
    with pytest.warns(UserWarning, match=r"not registered: .* is not a checkpoint.*; dbf export"):
        assert register_at_end(checkpoint / "gone", config) is None


def test_a_foreign_name_is_refused_before_anything_begins(
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    narrow: None,
) -> None:
    MlflowClient(uri, uri).create_registered_model("theirs")
    make_root(tmp_path / "data")
    monkeypatch.chdir(tmp_path)  # where studies are
    options = [*tiny_options(tmp_path / "data", tmp_path / "runs"), "--tracking.mlflow", "true"]
    options += ["--tracking.uri", uri, "--register", "theirs"]
    search = ["--space", "rho", "--study", "named"]
    for command, more in ((train_command.command, []), (search_command.command, search)):
        assert run_command(command, [*options, *more]) == 2
        assert "error: tracking.registered_model_name must be a new name" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ([[1, 2], [3]], r"image 3 must be nested lists \[H\]\[W\]\[3\]"),
        ([[[0.5, 0.5, 0.5]]], "of whole numbers, got float64"),
        ([[[0, 256, 0]]], r"values in 0\.\.255, got 0\.\.256"),
        ("data:image/gif;base64,R0lGODlh", "must be a PNG or JPEG file in base64"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"torn" * 9).decode(), "image 3: "),
    ],
)
def test_what_is_no_image_is_said(image: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_image(image, 3)


def test_text_that_is_no_file_in_base64_is_a_path() -> None:
    for text in ("scene.png", "/9j/scene.jpg", "iVBORw0KGgo.png", "a/b", ""):
        assert read_image(text, 0) == Path(text)


def test_a_checkpoint_is_loaded_once(checkpoint: Path, images: list[Path]) -> None:
    predictor = TablePredictor(checkpoint)
    assert predictor.rows([images[0]]) == predictor.rows([str(images[0])])
    assert predictor.rows([]) == []


def test_the_server_answers(model: Any, images: list[Path]) -> None:
    """MLflow's scoring server, without the process that ``mlflow models serve`` starts around it."""
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = TestClient(scoring_server.init(model))
        answer = client.post(
            "/invocations", json={"inputs": [in_base64(images[0])], "params": {"score": 0.1}}
        )
        assert answer.status_code == 200
        rows = answer.json()["predictions"]
        table = model.predict([str(images[0])], {"score": 0.1}).assign(image="0")
        assert rows == table.to_dict(orient="records")
        assert len(rows) > 0
        wrong = client.post("/invocations", json={"inputs": [[[[0, 300, 0]]]]})
    assert wrong.status_code == 400
    assert "image 0 must have values in 0..255" in wrong.text


@pytest.mark.slow  # starts a server of its own; test_the_server_answers guards what it answers
def test_mlflow_models_serve_answers(store: str, checkpoint: Path, images: list[Path], place: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/ships/1",
        "--port",
        str(port),
    ]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"  # where uvicorn is
    with (place / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--env-manager", "local"],
            env=environment,
            cwd=place,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            rows = asked(port, {"inputs": [in_base64(images[0])]})
        finally:
            os.killpg(server.pid, 15)
            server.wait(30)
    wanted = rows_of(checkpoint, images[:1])
    assert [row["label"] for row in rows] == [row[0] for row in wanted]
    assert [row["score"] for row in rows] == pytest.approx([row[1] for row in wanted], abs=1e-4)


def asked(port: int, body: dict[str, Any]) -> list[dict[str, Any]]:
    """What the server says, once it is up."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    for _ in range(120):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                rows: list[dict[str, Any]] = json.load(answer)["predictions"]
                return rows
        except (urllib.error.URLError, ConnectionError):
            time.sleep(1)
    raise AssertionError("the server did not answer in two minutes")
