"""Checkpoints and weights from elsewhere: nothing in them is run, written outside, or ends in a traceback."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dbf_ray.detectors.backbones.weights import read_state
from dbf_ray.detectors.mmrotate import read_mmrotate_checkpoint
from dbf_ray.errors import ConfigError, WeightsError
from dbf_ray.evaluate import config_of
from dbf_ray.run.resume import find_resume
from dbf_ray.search.own_run import unpack
from dbf_ray.tensors import load_tensors
from dbf_ray.training.checkpoint import load_checkpoint, read_record, save_checkpoint
from dbf_ray.training.manifest import fault_of, seal
from tests.tiny import tiny_config


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.made),)


def pickled(file: Path, made: Path) -> None:
    file.write_bytes(pickle.dumps(Hostile(made)))


def saved(file: Path, made: Path) -> None:
    torch.save({"model": Hostile(made)}, file)


def saved_by_old_torch(file: Path, made: Path) -> None:
    torch.save({"model": Hostile(made)}, file, _use_new_zipfile_serialization=False)


READERS: dict[str, Callable[[Path], Any]] = {
    "checkpoint": lambda file: load_checkpoint(file.parent),
    "backbone": lambda file: read_state(file, "narrow"),
    "mmrotate": read_mmrotate_checkpoint,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("write", [pickled, saved, saved_by_old_torch], ids=lambda write: write.__name__)
def test_code_in_weights_is_not_run(tmp_path: Path, write: Callable[[Path, Path], None], reader: str) -> None:
    file = tmp_path / "checkpoint.pt"
    (tmp_path / "record.json").write_text("{}")
    write(file, tmp_path / "made")
    with pytest.raises(WeightsError) as error:
        READERS[reader](file)
    assert not (tmp_path / "made").exists()
    assert "weights_only" not in str(error.value)  # torch's advice to read it all the same
    assert "\n" not in str(error.value)
    if write is saved:
        assert "mkdir, which could run code" in str(error.value)


def test_weights_that_unpack_to_many_times_their_size_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3_000_000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as bomb:
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)
    assert len(load_tensors(tmp_path / "plain.pt")["w"]) == 3_000_000
    with pytest.raises(ValueError, match="must unpack to at most 4 times as many, got 12"):
        load_tensors(tmp_path / "bomb.pt")


NESTED = "[" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        '{"files": {"../../x": {"bytes": 1, "sha256": "00"}}}',
        '{"files": {"checkpoint.pt": "/etc/passwd", "record.json": "../x"}}',
        '{"files": {"checkpoint.pt": {"bytes": 1e999, "sha256": 1}, "record.json": {"bytes": []}}}',
        '{"files": {"checkpoint.pt": {"bytes": "' + "9" * 5000 + '"}}}',
        NESTED,
    ],
    ids=["outside", "paths", "types", "digits", "nested"],
)
def test_a_manifest_names_no_other_files(tmp_path: Path, text: str) -> None:
    folder = save_checkpoint(tmp_path / "checkpoints", 1, {"epoch": 1}, {})
    (folder / "manifest.json").write_text(text)
    assert fault_of(folder) == "manifest.json cannot be read"


@pytest.mark.parametrize("text", ["[]", "null", NESTED, '{"x": ' + "9" * 5000 + "}", '{"x": 1'])
def test_a_record_that_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(WeightsError, match=r"cannot read checkpoint"):
        read_record(tmp_path)


HOSTILE_CONFIGS: dict[str, Any] = {
    "none": None,
    "a list": [1],
    "text": "data: {}",
    "a name that leaves its folder": {"name": "../../x"},
    "unknown keys": {"data": {"__class__": 1}},
    "a section that is none": {"data": 5},
}


@pytest.mark.parametrize("kind", HOSTILE_CONFIGS)
def test_a_record_with_a_hostile_configuration_is_refused(tmp_path: Path, kind: str) -> None:
    record = {"config": HOSTILE_CONFIGS[kind]}
    folder = save_checkpoint(tmp_path / "run" / "checkpoints", 1, {"epoch": 1}, record)
    with pytest.raises(WeightsError, match="must hold a configuration that this version understands"):
        config_of(folder)
    with pytest.raises((WeightsError, ConfigError), match="epoch-00001"):
        find_resume(tiny_config(runs_dir=str(tmp_path), name="run"), tmp_path / "run")


def test_a_record_without_a_configuration_is_no_traceback(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run" / "checkpoints", 1, {"epoch": 1}, {})
    with pytest.raises((WeightsError, ConfigError), match="epoch-00001"):
        find_resume(tiny_config(runs_dir=str(tmp_path), name="run"), tmp_path / "run")


def test_a_member_that_a_record_names_is_called_only_if_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbf_ray.detectors import find_detector

    called: list[Any] = []
    monkeypatch.setattr(os, "system", lambda command: called.append(command))
    for name in ("os:system", "subprocess:Popen", "builtins:exec", "os.path:join"):
        with pytest.raises(ConfigError, match="must be a class derived from"):
            find_detector(name)
    for name in ("os:system('x')", "../x:Y", "/etc/x:Y", "os;x:Y", "os:system;x"):
        with pytest.raises(ConfigError, match="must be a name of the table or"):
            find_detector(name)
    assert called == []


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "..", "a\0b"])
def test_files_of_a_state_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    content = torch.zeros(3, dtype=torch.uint8)
    path = name.replace("/out", str(tmp_path / "out")) if name == "/out" else name
    with pytest.raises(WeightsError, match="must stay in its folder"):
        unpack({"good": content, path: content}, tmp_path / "state" / "files")
    assert list(tmp_path.rglob("*")) == []


def test_states_of_a_hostile_checkpoint_are_refused_by_name(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoints", 1, {"epoch": 1}, {})
    torch.save([1, 2], folder / "checkpoint.pt")
    seal(folder)
    with pytest.raises(WeightsError, match=r"checkpoint.pt must hold a state, got list"):
        load_checkpoint(folder)
    (folder / "record.json").write_text(json.dumps({"classes": 5}))
