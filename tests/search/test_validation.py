"""Val is evaluated once, for the front, and only where the search selected on other images (that it is by
trials in Ray: test_after_trials.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dbf_ray.config import Config, to_dict, with_overrides
from dbf_ray.files import write_json
from dbf_ray.search.trial import trial_config
from dbf_ray.search.validation import record, to_validate, val_map50
from dbf_ray.training.checkpoint import save_checkpoint
from tests.training.damage import flipped, made

SELECTING = with_overrides(Config(), {"data.selection_fraction": 0.2})


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    for number, name in enumerate(("0", "1", "2", "2-seed-1")):
        drawn = with_overrides(Config(), {"data.root": "/moved", "data.image_size": 128 + 64 * number})
        checkpoint = save_checkpoint(
            tmp_path / name / "checkpoints", 1, {}, {"config": to_dict(drawn), "epochs": []}
        )
        write_json(tmp_path / name / "summary.json", {"map50": 0.5, "checkpoint": str(checkpoint)})
    return tmp_path


def result(folder: Path, *front: int) -> dict:
    rows = [{"number": number, "run": str(folder / str(number)), "seeds": []} for number in range(3)]
    rows[2]["seeds"] = [{"run": str(folder / "2-seed-1")}]
    within = {"number": None}
    return {"front": [*front], "front_posterior": [], "knee": None, "within": within, "trials": rows}


def test_the_front_is_evaluated_once_with_all_its_seeds(trials: Path) -> None:
    left = to_validate(result(trials, 0, 2), SELECTING, print)
    assert [folder.name for folder, _ in left] == ["0", "2", "2-seed-1"]
    line = record(trials / "2", {"map50": 0.6, "ap50/none": float("nan")})
    assert line == "trial 2, on the front: val map50 0.600 (selection map50 0.500)"
    assert [val_map50(trials / name) for name in ("0", "2")] == [None, 0.6]
    left = to_validate(result(trials, 0, 2), SELECTING, print)
    assert [folder.name for folder, _ in left] == ["0", "2-seed-1"]
    believed = {**result(trials), "front_posterior": [1], "knee": 0, "within": {"number": 1}}
    assert [folder.name for folder, _ in to_validate(believed, SELECTING, print)] == ["0", "1"]


@pytest.mark.parametrize("root", [None, "/here"])
def test_each_trial_is_evaluated_as_it_was_trained_on_the_study_s_data_and_device(
    trials: Path, root: str | None
) -> None:
    config = with_overrides(
        SELECTING,
        {"data.root": root, "training.device": "cpu", "data.image_size": 512, "cluster.workers": 2},
    )
    used = []
    for _, checkpoint in to_validate(result(trials, 0, 1), config, print):
        own = trial_config(checkpoint, config)
        used.append((own.data.image_size, own.data.root and str(own.data.root), own.training.device))
        assert own.cluster.workers == 1
    assert used == [(128, root, "cpu"), (192, root, "cpu")]


def test_nothing_is_evaluated_where_trials_were_compared_on_val(trials: Path) -> None:
    assert to_validate(result(trials, 0), Config(), print) == []


def test_a_checkpoint_that_is_torn_is_passed_over_or_named(trials: Path) -> None:
    folder = trials / "0" / "checkpoints"
    older, newer = made(folder, 1, 2)
    write_json(trials / "0" / "summary.json", {"map50": 0.5, "checkpoint": str(newer)})
    flipped("checkpoint.pt")(newer)
    with pytest.warns(UserWarning, match="is used instead"):
        assert to_validate(result(trials, 0), SELECTING, print) == [(trials / "0", older)]
    flipped("checkpoint.pt")(older)
    said: list[str] = []
    assert to_validate(result(trials, 0), SELECTING, said.append) == []
    assert "trial 0: not evaluated on val" in said[0]
    assert to_validate(result(trials, 0), SELECTING, print, here=False) == [(trials / "0", newer)]
