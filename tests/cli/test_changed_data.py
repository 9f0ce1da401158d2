"""Images or labels that change between a stop and its continuation: refused with what changed, or accepted
and noted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from dbf_ray.cli import evaluate, search, train
from dbf_ray.cli.options import run_command
from dbf_ray.tracking.urls import sqlite_url
from dbf_ray.training.checkpoint import list_checkpoints, read_record
from dbf_ray.training.manifest import seal
from tests.cli.conftest import write_ships

Refused = Callable[..., str]
OTHER = "8 8 40 8 40 24 8 24 ship 0\n"
ACCEPT = ["--data.changed", "accept"]


def stop(folder: Path, keep: int = 1) -> None:
    """As if the run had been killed after ``keep`` epochs."""
    (folder / "summary.json").unlink()
    for later in list_checkpoints(folder / "checkpoints")[keep:]:
        shutil.rmtree(later)


@pytest.fixture
def stopped(tiny: list[str], tmp_path: Path) -> tuple[Path, list[str]]:
    """A run of three epochs that stopped after the first, and its arguments."""
    arguments = [*tiny, "--training.epochs", "3", "--training.keep_checkpoints", "3", "--name", "a"]
    assert run_command(train.command, arguments) == 0
    stop(tmp_path / "runs" / "a")
    return tmp_path / "runs" / "a", arguments


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def relabel(root: Path) -> None:
    (root / "train" / "labelTxt" / "003.txt").write_text(OTHER)


def another_image(root: Path) -> None:
    write_ships(root / "val", 3)


def fewer_images(root: Path) -> None:
    (root / "train" / "images" / "007.png").unlink()
    (root / "train" / "labelTxt" / "007.txt").unlink()


def another_file(root: Path) -> None:
    file = root / "val" / "images" / "001.png"
    file.write_bytes(file.read_bytes() + b"\0")


CHANGES = {
    "labels": (relabel, "train: labels changed of 1 image (003)"),
    "more to evaluate on": (another_image, "val: 1 image (002) more"),
    "fewer to train on": (fewer_images, "train: 1 image (007) fewer"),
    "another file": (another_file, "val: 1 image (001) changed"),
}


def test_a_run_does_not_go_on_with_other_data(
    stopped: tuple[Path, list[str]], root: Path, tmp_path: Path, refused: Refused
) -> None:
    folder, arguments = stopped
    for name, (change, phrase) in CHANGES.items():
        change(shutil.copytree(root, tmp_path / name))
        line = refused(train.command, [*arguments, "--data.root", str(tmp_path / name)])
        assert f"the data of run 'a' in {tmp_path / 'runs'} have changed since it began: {phrase}; " in line
        assert "--data.changed accept" in line
    # the data as they were, though in another place
    moved = shutil.copytree(root, tmp_path / "moved", copy_function=shutil.copyfile)
    assert run_command(train.command, [*arguments, "--data.root", str(moved)]) == 0
    assert summary_of(folder)["data_changes"] == []


def test_a_run_that_accepts_goes_on_and_says_so(
    stopped: tuple[Path, list[str]], root: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, arguments = stopped
    before = read_record(list_checkpoints(folder / "checkpoints")[-1])["facts"]
    relabel(root)
    assert run_command(train.command, [*arguments, *ACCEPT]) == 0
    phrase = "train: labels changed of 1 image (003)"
    assert f"note: the data have changed after epoch 1: {phrase}" in capsys.readouterr().err
    changed = [{"after": "epoch 1", "digest": before["data_digest"], "changed": [phrase]}]
    summary = summary_of(folder)
    assert before["data_changes"] == []
    assert summary["data_changes"] == changed
    assert summary["data_digest"] != before["data_digest"]
    stop(folder, 2)
    newest = read_record(list_checkpoints(folder / "checkpoints")[-1])
    assert newest["facts"]["data_digest"] == summary["data_digest"]
    assert newest["facts"]["data_changes"] == changed
    assert run_command(train.command, arguments) == 0  # these are its data from then on
    assert summary_of(folder)["data_changes"] == changed
    stop(folder, 2)
    another_image(root)
    assert "val: 1 image (002) more; " in refused(train.command, arguments)


def test_what_changed_cannot_always_be_said(
    stopped: tuple[Path, list[str]], root: Path, refused: Refused
) -> None:
    folder, arguments = stopped
    (folder / "data.json").unlink()
    relabel(root)
    assert f"{folder / 'data.json'}, which would say in what, is not there" in refused(
        train.command, arguments
    )
    assert run_command(train.command, [*arguments, *ACCEPT]) == 0


@pytest.mark.parametrize("splits", [[], {"train": {}}, {"train": {"images": {"003": []}, "classes": None}}])
def test_a_file_of_something_else_is_no_crash(
    stopped: tuple[Path, list[str]], root: Path, refused: Refused, splits: Any
) -> None:
    folder, arguments = stopped
    known = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps({**known, "splits": splits}))
    relabel(root)
    assert "have changed since it began" in refused(train.command, arguments)


def test_other_classes_are_not_accepted(
    stopped: tuple[Path, list[str]], root: Path, refused: Refused
) -> None:
    """A detector of other classes could not take the weights: no step that does not work is offered."""
    _, arguments = stopped
    (root / "train" / "labelTxt" / "003.txt").write_text(OTHER.replace("ship", "plane"))
    for options in (arguments, [*arguments, *ACCEPT], [*arguments, *ACCEPT, "--cluster.use_ray", "true"]):
        line = refused(train.command, options)
        assert "train: classes were ship, now plane, ship; " in line
        assert "--data.changed" not in line
    arguments[arguments.index("a")] = "b"
    assert run_command(train.command, arguments) == 0


def test_a_checkpoint_without_a_digest_goes_on(stopped: tuple[Path, list[str]], root: Path) -> None:
    folder, arguments = stopped
    (checkpoint,) = list_checkpoints(folder / "checkpoints")
    record = json.loads((checkpoint / "record.json").read_text())
    del record["facts"]
    (checkpoint / "record.json").write_text(json.dumps(record))
    seal(checkpoint)
    relabel(root)
    assert run_command(train.command, arguments) == 0


def test_a_checkpoint_is_evaluated_on_any_data(stopped: tuple[Path, list[str]], root: Path) -> None:
    folder, _ = stopped
    another_image(root)
    (checkpoint,) = list_checkpoints(folder / "checkpoints")
    assert run_command(evaluate.command, ["--checkpoint", str(checkpoint)]) == 0


def test_it_is_told_before_ray_starts(
    stopped: tuple[Path, list[str]], root: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    _, arguments = stopped
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", started)
    relabel(root)
    assert "labels changed" in refused(train.command, [*arguments, "--cluster.workers", "2"])


@pytest.fixture
def study(tiny: list[str], searching: list[str]) -> list[str]:
    """Options of a search of the study ``s``."""
    return [*tiny, *searching, "--study", "s"]


def begin_trials(folder: Path, *numbers: int) -> None:
    """As if a search of ``full`` had begun trials with these numbers, and they had failed."""
    opened = optuna.load_study(study_name=folder.name, storage=sqlite_url(folder / "study.db"))
    facts = {"policy": "full", "parameters": {}, "rho": None, "seed": 0}
    for number in numbers:
        trial = opened.ask()
        trial.set_user_attr("setting", {**facts, "key": "k", "overrides": {"freezing.policy": "full"}})
        trial.set_user_attr("number", number)
        opened.tell(trial, state=optuna.trial.TrialState.FAIL)
        (folder / "trials" / str(number)).mkdir(parents=True)


def test_a_study_does_not_go_on_with_other_data(
    study: list[str], root: Path, tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(search.command, study) == 0
    begin_trials(tmp_path / "studies" / "s", 6)
    for name, (change, phrase) in CHANGES.items():
        change(shutil.copytree(root, tmp_path / name))
        line = refused(search.command, [*study, "--data.root", str(tmp_path / name)])
        assert (
            f"the data of study 's' in {tmp_path / 'studies'} have changed since it began: {phrase}; " in line
        )
    changed = [*study, "--data.root", str(tmp_path / name)]
    assert run_command(search.command, [*changed, *ACCEPT]) == 0
    assert f"study s: note: the data have changed after trial 6: {phrase}" in capsys.readouterr().err
    stored = json.loads((tmp_path / "studies" / "s" / "data.json").read_text())
    (noted,) = stored["data_changes"]
    assert (noted["after"], noted["changed"]) == ("trial 6", [phrase])
    assert run_command(search.command, changed) == 0  # its data from then on
    assert phrase in refused(search.command, study)


def test_a_study_whose_own_file_is_torn_knows_by_its_trials(
    study: list[str], root: Path, tmp_path: Path, refused: Refused
) -> None:
    assert run_command(search.command, study) == 0
    folder = tmp_path / "studies" / "s"
    begin_trials(folder, 9, 10)
    (folder / "data.json").rename(folder / "trials" / "9" / "data.json")
    (folder / "data.json").write_text("")
    relabel(root)
    line = refused(search.command, study)
    assert "train: labels changed of 1 image (003)" in line
    (root / "train" / "labelTxt" / "003.txt").write_text(OTHER.replace("ship", "plane"))
    line = refused(search.command, [*study, *ACCEPT])
    assert "classes were ship, now plane, ship; " in line
    relabel(root)
    assert run_command(search.command, [*study, *ACCEPT]) == 0


def test_a_study_without_baselines_has_data_too(
    study: list[str], root: Path, tmp_path: Path, refused: Refused
) -> None:
    space = tmp_path / "space.py"
    space.write_text(
        "BASELINES = []\n\ndef space(trial):\n    return {'seed': trial.suggest_int('seed', 0, 9)}\n"
    )
    options = [*study, "--space", str(space), "--freezing.policy", "frozen"]
    assert run_command(search.command, options) == 0
    relabel(root)
    assert "labels changed of 1 image (003)" in refused(search.command, options)


def test_val_that_is_left_for_the_end(
    study: list[str],
    root: Path,
    tmp_path: Path,
    refused: Refused,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [*study, "--data.selection_fraction", "0.25"]
    for number in range(2):
        (root / "val" / "labelTxt" / f"00{number}.txt").write_text("")
    assert run_command(search.command, options) == 0
    assert "the front's map50 on val will be none, since there none of 2 images" in capsys.readouterr().err
    another_image(root)
    assert "val: 1 image (002) more, val: labels" in refused(search.command, options).replace(";", ",")
    shutil.rmtree(root / "val")
    assert "val: 2 images (the first is 000) fewer" in refused(search.command, options)
    options[options.index("s")] = "another"
    assert run_command(search.command, options) == 0  # without val, which may come later
    assert "the front will not be evaluated on val" in capsys.readouterr().err
    another_image(root)
    assert run_command(search.command, options) == 0
