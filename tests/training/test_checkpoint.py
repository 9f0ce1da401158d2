"""Checkpoints: whole or not there, whenever the process dies; the newest N are kept."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dbf_ray.errors import WeightsError
from dbf_ray.training import checkpoint as module
from dbf_ray.training import manifest
from dbf_ray.training.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)


class Killed(BaseException):
    """Stands for the death of the process: nothing in the package catches it."""


def save(folder: Path, epoch: int, keep: int = 2) -> Path:
    return save_checkpoint(
        folder,
        epoch,
        {"model": {"w": torch.full((3,), float(epoch))}, "epoch": epoch},
        {"epochs": [epoch]},
        keep,
    )


def whole(folder: Path) -> list[int]:
    """Epochs of all listed checkpoints, each of which must be readable and hold its own epoch throughout."""
    epochs = []
    for path in list_checkpoints(folder):
        state, record = load_checkpoint(path)
        epoch = state["epoch"]
        assert torch.equal(state["model"]["w"], torch.full((3,), float(epoch)))
        assert record == {"epochs": [epoch]}
        assert path.name == f"epoch-{epoch:05d}"
        epochs.append(epoch)
    return epochs


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    for epoch in range(1, 6):
        save(tmp_path / "new" / "checkpoints", epoch, keep)
        assert whole(tmp_path / "new" / "checkpoints") == list(range(max(1, epoch - keep + 1), epoch + 1))
    assert len(list((tmp_path / "new" / "checkpoints").iterdir())) == keep


def test_order_is_by_epoch_not_by_time(tmp_path: Path) -> None:
    for epoch in (10, 9, 11):
        save(tmp_path, epoch, keep=3)
    assert whole(tmp_path) == [9, 10, 11]


def test_writing_an_epoch_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = save_checkpoint(tmp_path, 1, {"other": 1}, {})
    assert load_checkpoint(path) == ({"other": 1}, {})
    assert list_checkpoints(tmp_path) == [path]


def test_folders_that_are_no_checkpoints_are_not_listed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    shutil.copytree(tmp_path / "epoch-00001", tmp_path / ".partial-00002-1")
    shutil.copytree(tmp_path / "epoch-00001", tmp_path / "epoch-00003.old")
    (tmp_path / "epoch-00004").mkdir()
    (tmp_path / "epoch-00005").write_text("")
    assert whole(tmp_path) == [1]
    assert list_checkpoints(tmp_path / "nowhere") == []


MOMENTS: dict[str, tuple[object, str]] = {
    "torch.save": (torch, "save"),
    "Path.write_text": (Path, "write_text"),
    "seal": (module, "seal"),
    "flush of a file": (manifest, "flush"),
    "os.replace": (os, "replace"),
    "Path.rename": (Path, "rename"),
    "flush of the folder": (module, "flush"),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_death_at_any_moment_leaves_whole_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, done: bool
) -> None:
    owner, name = MOMENTS[moment]
    save(tmp_path, 1)
    save(tmp_path, 2)
    original = getattr(owner, name)

    def die(*args: Any, **kwargs: Any) -> None:
        if done:
            original(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        with pytest.raises(Killed):
            save(tmp_path, 3)
    renamed = (moment == "Path.rename" and done) or moment == "flush of the folder"
    assert whole(tmp_path) == ([1, 2, 3] if renamed else [1, 2])
    save(tmp_path, 3)  # the run goes on
    assert whole(tmp_path) == [2, 3]


def test_death_in_the_middle_of_a_file_leaves_whole_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def torn(state: Any, file: Path) -> None:
        file.write_bytes(b"PK\x03\x04 half a checkpoint")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", torn)
        with pytest.raises(Killed):
            save(tmp_path, 2)
    assert whole(tmp_path) == [1]


def test_old_checkpoints_are_removed_only_when_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, keep=1)
    seen = []
    original = shutil.rmtree

    def watch(path: Path, **options: Any) -> None:
        seen.append((Path(path).name, (tmp_path / "epoch-00002" / "record.json").is_file()))
        original(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watch)
    save(tmp_path, 2, keep=1)
    assert (".partial-epoch-00001-gone", True) in seen
    assert (".partial-epoch-00001-gone", False) not in seen


@pytest.mark.parametrize("file", ["checkpoint.pt", "record.json"])
def test_broken_files_are_named(tmp_path: Path, file: str) -> None:
    path = save(tmp_path, 1)
    content = (path / file).read_bytes()
    (path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=f"cannot read checkpoint {path}: .*; give one that") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)
    (path / file).unlink()
    with pytest.raises(WeightsError, match=f"{path} is not a checkpoint: {file} is missing; give a folder"):
        load_checkpoint(path)


def test_nothing_but_data_is_loaded(tmp_path: Path) -> None:
    """A checkpoint cannot run code: pickled objects are refused."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    path = save_checkpoint(tmp_path, 1, {"model": Evil()}, {})
    with pytest.raises(WeightsError, match="cannot read checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "harm").exists()


def test_the_generators_go_on_where_they_were(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"random": random_state()}, {})
    expected = (torch.rand(5), [random.random() for _ in range(5)], random.gauss(0, 1))
    torch.manual_seed(99)
    random.seed(99)
    restore_random_state(load_checkpoint(path)[0]["random"])
    found = (torch.rand(5), [random.random() for _ in range(5)], random.gauss(0, 1))
    assert torch.equal(found[0], expected[0])
    assert found[1:] == expected[1:]
