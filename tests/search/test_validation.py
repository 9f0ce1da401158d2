"""Val is evaluated once, for the front, and only where the search selected on other images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.config import Config, to_dict, with_overrides
from dbf_ray.errors import WeightsError
from dbf_ray.files import write_json
from dbf_ray.search.validation import val_map50, validate_front
from dbf_ray.training.checkpoint import save_checkpoint
from dbf_ray.training.manifest import seal
from tests.training.damage import flipped, made


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    for number in range(3):
        drawn = with_overrides(Config(), {"data.root": "/moved", "data.image_size": 128 + 64 * number})
        checkpoint = save_checkpoint(
            tmp_path / str(number) / "checkpoints", 1, {}, {"config": to_dict(drawn), "epochs": []}
        )
        write_json(tmp_path / str(number) / "summary.json", {"map50": 0.5, "checkpoint": str(checkpoint)})
    return tmp_path


def test_the_front_is_evaluated_once(trials: Path) -> None:
    config = with_overrides(Config(), {"data.selection_fraction": 0.2})
    said: list[str] = []
    asked: list[str] = []

    def evaluate(checkpoint: Path, _: Config) -> dict[str, float]:
        number = checkpoint.parents[1].name
        asked.append(number)
        return {"map50": 0.4 + int(number) / 10, "ap50/none": float("nan")}

    for _ in range(2):
        validate_front({"front": [0, 2]}, trials, config, said.append, evaluate)
    assert asked == ["0", "2"]
    assert [val_map50(trials / str(number)) for number in range(3)] == [0.4, None, pytest.approx(0.6)]
    assert said[1] == "trial 2, on the front: val map50 0.600 (selection map50 0.500)"


@pytest.mark.parametrize("root", [None, "/here"])
def test_each_trial_is_evaluated_as_it_was_trained_on_the_study_s_data_and_device(
    trials: Path, root: str | None
) -> None:
    config = with_overrides(
        Config(),
        {"data.selection_fraction": 0.2, "data.root": root, "training.device": "cpu", "data.image_size": 512},
    )
    used: list[tuple[int, str | None, str]] = []

    def evaluate(_: Path, own: Config) -> dict[str, float]:
        used.append((own.data.image_size, own.data.root and str(own.data.root), own.training.device))
        return {"map50": 0.4}

    validate_front({"front": [0, 2]}, trials, config, print, evaluate)
    assert used == [(128, root, "cpu"), (256, root, "cpu")]


def test_nothing_is_evaluated_where_trials_were_compared_on_val(trials: Path) -> None:
    def evaluate(*_: Any) -> dict[str, float]:
        raise AssertionError("val was evaluated twice")

    validate_front({"front": [0]}, trials, Config(), print, evaluate)
    assert val_map50(trials / "0") is None


def test_a_checkpoint_that_is_not_here_is_named(trials: Path) -> None:
    config = with_overrides(Config(), {"data.selection_fraction": 0.2})
    said: list[str] = []

    def evaluate(checkpoint: Path, _: Config) -> dict[str, float]:
        raise WeightsError(f"{checkpoint} is not a checkpoint")

    validate_front({"front": [1]}, trials, config, said.append, evaluate)
    assert "trial 1: not evaluated on val" in said[0]
    assert val_map50(trials / "1") is None


def test_the_newest_whole_checkpoint_is_evaluated_and_noted(trials: Path) -> None:
    config, folder = with_overrides(Config(), {"data.selection_fraction": 0.2}), trials / "0" / "checkpoints"
    older, newer = made(folder, 1, 2)
    write_json(trials / "0" / "summary.json", {"map50": 0.5, "checkpoint": str(newer)})
    for checkpoint in (older, newer):
        (checkpoint / "record.json").write_text(json.dumps({"config": to_dict(Config()), "epochs": []}))
        seal(checkpoint)
    flipped("checkpoint.pt")(newer)
    asked: list[Path] = []

    def evaluate(checkpoint: Path, _: Config) -> dict[str, float]:
        asked.append(checkpoint)
        return {"map50": 0.4}

    with pytest.warns(UserWarning, match="is used instead"):
        validate_front({"front": [0]}, trials, config, print, evaluate)
    assert asked == [older]
    assert json.loads((trials / "0" / "val.json").read_text()) == {"map50": 0.4, "checkpoint": str(older)}
    (trials / "0" / "val.json").unlink()
    flipped("checkpoint.pt")(older)
    said: list[str] = []
    validate_front({"front": [0]}, trials, config, said.append, evaluate)
    assert "trial 0: not evaluated on val" in said[0]
