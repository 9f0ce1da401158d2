"""A disk that is full: the place and the need are named, nothing half-written stays, and it can go on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dbf_ray.cli import prepare_data
from dbf_ray.config import Config
from dbf_ray.errors import ResourceError
from dbf_ray.files import whole_file, write_json
from dbf_ray.freezing.cache import DiskCache, Key
from dbf_ray.room import enough_room, free_bytes, is_full
from dbf_ray.run import find_resume, run, run_directory
from dbf_ray.search.optuna_study import open_study
from dbf_ray.search.store import Store
from dbf_ray.tracking import JsonlTracker, read_epochs
from dbf_ray.training import checkpoint as module
from dbf_ray.training.checkpoint import save_checkpoint
from dbf_ray.training.manifest import fault_of

MB = 1_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes small disks; skipped where this user can mount none."""
    mounted: list[Path] = []

    def make(megabytes: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        size = f"size={megabytes}m"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip("no tmpfs can be mounted here")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def filled(place: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = place / "ballast"
    with ballast.open("wb") as stream, contextlib.suppress(OSError):
        while os.write(stream.fileno(), b"\0" * 4096):
            pass
    assert free_bytes(place) == 0
    return ballast


def state(megabytes: float) -> dict[str, Any]:
    return {"model": {"w": torch.zeros(int(megabytes * MB / 4))}, "epoch": 1}


def test_a_checkpoint_that_has_no_room_leaves_nothing_and_says_what_it_needs(
    disk: Callable[[int], Path],
) -> None:
    folder = disk(3) / "checkpoints"
    first = save_checkpoint(folder, 1, state(0.5), {"epochs": [0]})
    with pytest.raises(ResourceError) as error:
        save_checkpoint(folder, 2, state(4), {"epochs": [0, 1]})
    assert f"the disk of {folder} is full: the checkpoint of epoch 2 needs 4.0 MB, 2." in str(error.value)
    assert os.listdir(folder) == ["epoch-00001"]
    assert fault_of(first) is None
    save_checkpoint(folder, 2, state(1), {"epochs": [0, 1]})  # there is room for this again


@pytest.mark.parametrize("step", ["torch.save", "Path.write_text", "seal", "flush", "manifest"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_may_be_full_at_any_write_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    first = save_checkpoint(tmp_path, 1, state(0.1), {"epochs": [0]})

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        if step == "torch.save":
            patch.setattr(torch, "save", fail)
        elif step == "Path.write_text":
            patch.setattr(Path, "write_text", fail)
        elif step == "seal":
            patch.setattr(module, "seal", fail)
        else:
            name = {"flush": "flush", "manifest": "write_json"}[step]
            patch.setattr(f"dbf_ray.training.manifest.{name}", fail)
        with pytest.raises(ResourceError, match=r"full: the checkpoint of epoch 2 needs 0\.1 MB"):
            save_checkpoint(tmp_path, 2, state(0.1), {})
    assert os.listdir(tmp_path) == [first.name]
    assert fault_of(first) is None


def test_what_is_no_full_disk_is_not_called_one(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), enough_room(tmp_path, "it"):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(RuntimeError, match="other"), enough_room(tmp_path, "it", 1):
        raise RuntimeError("other")
    told = r"it needs more than there is, [\d.]+ MB are free"
    with pytest.raises(ResourceError, match=told), enough_room(tmp_path / "a", "it"):
        raise ValueError("wrapped") from OSError(errno.ENOSPC, "No space left on device")


class Told:
    """A tracker that remembers why a run failed."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def start(self, config: dict[str, Any], facts: dict[str, Any], resume_epoch: int) -> None: ...

    def epoch(self, record: dict[str, Any]) -> None: ...

    def finish(self, summary: dict[str, Any]) -> None: ...

    def fail(self, reason: str, killed: bool = False) -> None:
        self.reasons.append(reason)


@pytest.mark.parametrize("left", [0, 100_000])
def test_a_run_on_a_disk_that_fills_up_says_so_and_goes_on_when_there_is_room(
    tiny: Callable[..., Config],
    disk: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    left: int,
) -> None:
    place, others = disk(16), tmp_path / "temporary"
    others.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(others))
    config = tiny(runs_dir=str(place), name="mine", training__epochs=3)
    directory, told = run_directory(config), Told()

    def fill(record: dict[str, Any], checkpoint: Path | None) -> bool:
        if record["epoch"] == 1:
            with filled(place).open("r+b") as stream:
                stream.truncate(os.fstat(stream.fileno()).st_size - left)
        return True

    def attempt() -> dict[str, Any]:
        trackers, begun = [JsonlTracker(directory), told], find_resume(config, directory)
        return run(config, trackers=trackers, on_epoch=fill, resume=begun, quiet=True)

    elsewhere = others / "dbf_ray-mine-failure.json"
    if left:
        needs = r"checkpoints is full: the checkpoint of epoch 3 needs [\d.]+ MB, 0\.\d MB were free"
        with pytest.raises(ResourceError, match=needs):
            attempt()
        assert json.loads((directory / "failure.json").read_text())["reason"] == told.reasons[0]
        assert not elsewhere.exists()
    else:
        warned = pytest.warns(UserWarning, match=rf"failure.json could not be .*; it is {elsewhere}")
        with warned, pytest.raises(ResourceError, match=r"the disk of .*mine.* is full"):
            attempt()
        assert json.loads(elsewhere.read_text()) == {"reason": told.reasons[0], "run": str(directory)}
    checkpoints = directory / "checkpoints"
    assert sorted(os.listdir(checkpoints)) == ["epoch-00001", "epoch-00002"]
    assert all(fault_of(path) is None for path in checkpoints.iterdir())
    (place / "ballast").unlink()
    assert attempt()["epochs"] == 3
    assert [record["epoch"] for record in read_epochs(directory)] == [0, 1, 2]


def test_a_file_that_has_no_room_is_named_and_leaves_nothing(disk: Callable[[int], Path]) -> None:
    place = disk(1)
    filled(place)
    with pytest.raises(OSError, match="No space left") as error:
        write_json(place / "a.json", ["x" * 100] * 1000)
    assert error.value.filename == str(place / "a.json")
    with pytest.raises(OSError, match="No space left") as error, whole_file(place / "b.npy") as file:
        np.save(file.open("wb"), np.zeros(MB))
    assert error.value.filename == str(place / "b.npy")
    assert os.listdir(place) == ["ballast"]


def test_patches_that_have_no_room_are_named_and_cut_when_there_is(
    disk: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = disk(3)
    for folder in ("images", "labelTxt"):
        (tmp_path / "data" / "train" / folder).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "data" / "train" / "images" / "a.png")
    (tmp_path / "data" / "train" / "labelTxt" / "a.txt").write_text("4 4 60 4 60 60 4 60 ship 0\n")
    command = ["split", str(tmp_path / "data"), str(place / "out"), "--size", "400", "--overlap", "0"]
    assert prepare_data.main(command) == 2
    said = capsys.readouterr().err
    assert f"error: {place / 'out' / 'train' / 'images'}" in said
    assert "No space left on device" in said
    assert list(place.rglob(".*.partial")) == []


def test_a_cache_and_a_store_do_without_what_has_no_room(disk: Callable[[int], Path], tmp_path: Path) -> None:
    place = disk(2)
    whole = save_checkpoint(tmp_path / "run" / "checkpoints", 1, state(4), {"epochs": [0], "facts": {}})
    store = Store(place / "states", {})
    with pytest.raises(OSError, match="No space left"):
        store.publish(whole, "s")
    assert store.names() == set()
    assert list((place / "states").iterdir()) == []
    cache = DiskCache(place / "features", 100 * MB, "float32")
    cache.begin("f")
    with pytest.warns(UserWarning, match="the feature cache cannot write to"):
        assert not cache.put(Key("a", "none", (8, 8)), [torch.zeros(64, 128, 128)])
    assert list(place.rglob("*.partial")) == []


def test_a_study_that_has_no_room_is_told_as_that(disk: Callable[[int], Path]) -> None:
    place = disk(1)
    study = open_study(place / "study.db", "s", trials=1, seed=0)
    filled(place)

    def grow() -> None:
        for number in range(1000):
            study.set_user_attr(f"k{number}", "x" * 4000)

    with (
        pytest.raises(ResourceError, match=f"the disk of {place} is full: the study"),
        enough_room(place, "the study"),
    ):
        grow()
    assert not is_full(ValueError("x"))
