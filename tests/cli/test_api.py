"""The functions of ``import dbf_ray``: what a configuration may be; results are those of the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dbf_ray
from dbf_ray.api import as_config
from dbf_ray.config import Config
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.files import write_json
from dbf_ray.geometry import boxes_to_corners
from dbf_ray.predict import Options, predict

Trained = tuple[Path, list[str], str]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "config",
    [
        "demo",
        ROOT / "jobs" / "configs" / "demo.yaml",
        {"training": {"epochs": 12}, "data": {"image_size": 192}},
        Config.model_validate({"training": {"epochs": 12}, "data": {"image_size": 192}}),
    ],
    ids=["name", "file", "dictionary", "object"],
)
def test_a_configuration_in_any_form_with_keys_in_any_form(config: Any) -> None:
    dotted = as_config(config, **{"freezing.policy": "step", "freezing.rho": 4, "training.lr": 0.1})
    nested = as_config(config, freezing={"policy": "step", "rho": 4}, training={"lr": 0.1})
    assert dotted == nested
    assert dotted.freezing.parameters == {"rho": 4}
    assert (dotted.training.epochs, dotted.training.lr, dotted.data.image_size) == (12, 0.1, 192)


def test_a_configuration_that_is_not_changed_or_not_given() -> None:
    config = Config(seed=3)
    assert as_config(config) is config
    assert as_config() == Config()
    assert as_config(seed=4).seed == 4


def test_another_policy_leaves_nothing_of_the_first_ones_parameters() -> None:
    config = as_config(freezing={"policy": "step", "rho": 4})
    assert as_config(config, freezing={"policy": "frozen"}).freezing.parameters == {}
    changed = as_config(config, freezing={"policy": "budget", "limit": 0.9, "inner": {"name": "full"}})
    assert changed.freezing.parameters == {"limit": 0.9, "inner": {"name": "full"}}


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("domo", {}, "domo does not exist"),
        ({"trainin": {}}, {}, r"unknown key trainin: did you mean training\?.*in the configuration given"),
        (None, {"training": {"epoch": 3}}, "unknown key training.epoch"),
        (Config(), {"training.epochs": 0}, "training.epochs"),
    ],
)
def test_bad_configurations(config: Any, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dbf_ray.train_detector(config, **overrides)


def test_a_training_gives_its_summary_and_resumes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "name": "tiny",
        "runs_dir": tmp_path / "runs",
        "data": {"name": "dota", "root": root, "image_size": 64},
        "detector": {"backbone": "resnet18", "fpn_channels": 16, "head_convs": 1},
        "training": {"epochs": 2, "batch_size": 4, "threads": 1, "keep_checkpoints": 2},
        "tracking": {"mlflow": False},
    }
    folder = tmp_path / "runs" / "tiny"
    whole = dbf_ray.train_detector(config, freezing={"policy": "step", "rho": 2})
    assert whole == json.loads((folder / "summary.json").read_text())
    assert (whole["epochs"], whole["frozen_prefixes"]) == (2, [0, 4])
    with pytest.raises(ConfigError, match="is finished"):
        dbf_ray.train_detector(config, freezing={"policy": "step", "rho": 2})
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "epoch-00002")
    capsys.readouterr()
    again = dbf_ray.train_detector(config, **{"freezing.policy": "step", "freezing.rho": 2})
    assert "resuming after 1 of 2 epochs, from " in capsys.readouterr().err
    assert again["map50"] == whole["map50"]


@pytest.mark.parametrize(
    ("cluster", "through_ray"), [({"use_ray": True}, True), ({"workers": 2}, True), ({}, False)]
)
def test_who_trains(cluster: dict[str, Any], through_ray: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("dbf_ray.api.prepare", lambda config: None)
    monkeypatch.setattr("dbf_ray.api.find_resume", lambda config, directory: None)
    monkeypatch.setattr("dbf_ray.api.run", lambda config, **_: {"by": "run"})
    monkeypatch.setattr("dbf_ray.cluster.train_on_ray", lambda config: {"by": "ray"})
    assert dbf_ray.train_detector(cluster=cluster) == {"by": "ray" if through_ray else "run"}


def test_a_search_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def instead(config: Config, space: Path, **options: Any) -> dict[str, Any]:
        asked.append({"config": config, "space": space, **options})
        return {"study": options["study_name"]}

    monkeypatch.setattr("dbf_ray.search.search", instead)
    result = dbf_ray.search_schedules("demo", "rho", trials=3, search={"studies_dir": str(tmp_path)}, seed=7)
    assert result == {"study": "rho-synthetic"}
    (one,) = asked
    assert one["space"] == ROOT / "search_spaces" / "rho.py"
    assert (one["trials"], one["concurrent"], one["studies_dir"]) == (3, None, tmp_path)
    assert (one["config"].seed, one["config"].training.epochs) == (7, 12)


def test_a_search_registers_what_it_recommends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_json(tmp_path / "1" / "summary.json", {"checkpoint": "trials/1/checkpoints/epoch-00012"})
    trials = [{"number": number, "run": str(tmp_path / str(number))} for number in (0, 1)]
    result: dict[str, Any] = {"study": "s", "answer": {"number": 1}, "trials": trials}
    registered: list[str | None] = []
    monkeypatch.setattr("dbf_ray.api.check_register", lambda config: None)
    monkeypatch.setattr("dbf_ray.api.register_at_end", lambda place, config: registered.append(place))
    monkeypatch.setattr("dbf_ray.search.search", lambda *_, **__: result)
    options: dict[str, Any] = {"tracking.registered_model_name": "ships"}
    dbf_ray.search_schedules("demo", "rho", **options)
    assert registered == ["trials/1/checkpoints/epoch-00012"]
    result["answer"] = {}
    with pytest.warns(UserWarning, match="the study recommends no setting, so none is registered"):
        dbf_ray.search_schedules("demo", "rho", **options)
    assert len(registered) == 1


def test_an_evaluation_gives_the_runs_metrics(trained: Trained, trained_checkpoint: Path, root: Path) -> None:
    summary = json.loads((trained[0] / "summary.json").read_text())
    metrics = dbf_ray.evaluate_checkpoint(trained_checkpoint, evaluation={"batch_size": 1})
    for key in ("map50", "map75", "map50_95", "ap50/ship"):
        assert metrics[key] == pytest.approx(summary[key], abs=1e-6), key
    assert set(dbf_ray.evaluate_checkpoint(str(trained_checkpoint), str(root), "train")) == set(metrics)
    with pytest.raises(DataError, match="nowhere is not there"):
        dbf_ray.evaluate_checkpoint(trained_checkpoint, "nowhere")


def written(file: Path) -> np.ndarray[Any, Any]:
    """Corners and score of each line."""
    rows = [line.split() for line in file.read_text().splitlines()]
    return np.array([[*row[:8], row[9]] for row in rows], dtype=float).reshape(-1, 9)


def test_detections_in_memory_are_those_in_files(
    trained_checkpoint: Path, root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("000", "001"):
        shutil.copy(root / "val" / "images" / f"{name}.png", folder)
    large = np.zeros((130, 200, 3), np.uint8)
    large[50:114, 104:168] = np.asarray(Image.open(folder / "000.png"))
    Image.fromarray(large).save(folder / "002.png")
    predict(trained_checkpoint, folder, tmp_path / "out", Options(formats=("dota",)), lambda line: None)
    files = sorted(folder.iterdir())
    found = dbf_ray.predict_images(trained_checkpoint, files)
    assert len(found) == 3
    for file, one in zip(files, found, strict=True):
        wanted = written(tmp_path / "out" / "labels" / f"{file.stem}.txt")
        rows = torch.cat([boxes_to_corners(one["boxes"].double()), one["scores"].double()[:, None]], 1)
        assert len(wanted) > 0
        assert rows.numpy() == pytest.approx(wanted, abs=0.02)
        assert set(one["names"]) == {"ship"}
        assert len(one["names"]) == len(one["labels"])

    arrays = [np.asarray(Image.open(file)) for file in files]
    tensors = [torch.from_numpy(array.copy()).permute(2, 0, 1) for array in arrays]
    for same in (arrays, tensors, [str(files[0]), arrays[1], tensors[2]]):
        for one, other in zip(found, dbf_ray.predict_images(trained_checkpoint, same), strict=True):
            assert all(torch.equal(one[key], other[key]) for key in ("boxes", "scores", "labels"))
    (alone,) = dbf_ray.predict_images(trained_checkpoint, arrays[0], score=0.1)
    assert 0 < len(alone["scores"]) < len(found[0]["scores"])


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (
            np.zeros((8, 8), np.uint8),
            {},
            r"image 0 must be an array uint8 \[H, W, 3\] in RGB, got uint8 \[8, 8\]",
        ),
        (np.zeros((8, 8, 3), np.float32), {}, r"got float32 \[8, 8, 3\]"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), {}, r"\[3, H, W\].* got torch.uint8 \[1, 8, 8\]"),
        (torch.zeros(3, 0, 8, dtype=torch.uint8), {}, r"got torch.uint8 \[3, 0, 8\]"),
        (None, {}, "got NoneType"),
        ("nowhere.png", {}, "nowhere.png"),
        (np.zeros((8, 8, 3), np.uint8), {"window": 0}, "window must be >= 1 pixel, got 0"),
        (np.zeros((8, 8, 3), np.uint8), {"nms": 0.0}, r"nms must be an IoU in \(0, 1\]"),
    ],
)
def test_bad_images_and_options(
    image: Any, options: dict[str, Any], message: str, trained_checkpoint: Path
) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        dbf_ray.predict_images(trained_checkpoint, image, **options)
