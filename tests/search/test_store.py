"""The store of states: whole or not at all, links where they can be, and never more than is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.search.store import Store
from dbf_ray.training.checkpoint import load_checkpoint, save_checkpoint
from dbf_ray.training.manifest import seal
from tests.training.damage import flipped

VERSIONS = {"torch": "2"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "states", VERSIONS)


def checkpoint(folder: Path, epoch: int, **facts: Any) -> Path:
    facts = {"name": "a", "pieces": [{"epoch": 0, "versions": {**VERSIONS, "ray": "2"}}], **facts}
    return save_checkpoint(folder / "checkpoints", epoch, {"epoch": epoch}, {"facts": facts, "epochs": []}, 1)


def test_a_state_is_a_link_that_outlives_its_checkpoint(tmp_path, store):
    first = checkpoint(tmp_path, 1)
    assert store.publish(first, "a")
    assert os.stat(first / "checkpoint.pt").st_ino == os.stat(store["a"] / "checkpoint.pt").st_ino
    checkpoint(tmp_path, 2)
    assert not first.exists()
    assert store.whole("a")
    assert load_checkpoint(store["a"])[0] == {"epoch": 1}
    assert store.names() == {"a"}


def test_a_state_is_a_copy_where_it_cannot_be_a_link(tmp_path, store, monkeypatch):
    def other_device(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_device)
    first = checkpoint(tmp_path, 1)
    assert store.publish(first, "a")
    flipped("checkpoint.pt")(first)
    assert store.whole("a")


def test_a_state_that_is_there_is_left_alone_and_a_torn_one_replaced(tmp_path, store):
    store.publish(checkpoint(tmp_path, 1), "a")
    assert store.publish(checkpoint(tmp_path, 2), "a")
    assert load_checkpoint(store["a"])[0] == {"epoch": 1}
    (store["a"] / "record.json").unlink()
    assert store.names() == set()
    store.publish(checkpoint(tmp_path, 3), "a")
    assert load_checkpoint(store["a"])[0] == {"epoch": 3}


def test_two_processes_publish_one_state(tmp_path, store, monkeypatch):
    other = Store(store.folder, VERSIONS)
    theirs, ours = checkpoint(tmp_path / "theirs", 1), checkpoint(tmp_path / "ours", 2)
    monkeypatch.setattr("dbf_ray.search.store.flush", lambda _: None)
    real, turns = os.link, [lambda: other.publish(theirs, "a")]

    def link(*arguments: Any) -> None:
        if turns:
            turns.pop()()
        real(*arguments)

    monkeypatch.setattr(os, "link", link)
    assert store.publish(ours, "a")
    assert load_checkpoint(store["a"])[0] == {"epoch": 1}
    assert [entry.name for entry in store.folder.iterdir()] == ["a"]


def test_a_full_disk_leaves_nothing_half_made(tmp_path, store, monkeypatch):
    first = checkpoint(tmp_path, 1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        store.publish(first, "a")
    assert list(store.folder.iterdir()) == []


def test_a_state_that_cannot_be_removed_stays(tmp_path, store, monkeypatch):
    store.publish(checkpoint(tmp_path, 1), "a")

    def busy(*_: Any) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    store.sweep(())
    assert store.whole("a")


def test_what_its_name_does_not_say_is_no_state(tmp_path, store):
    changed = [{"after": "epoch 1"}]
    older = [{"epoch": 0, "versions": {"torch": "1"}}, {"epoch": 1, "versions": VERSIONS}]
    for facts in ({"data_changes": changed}, {"pieces": older}, {"pieces": []}):
        assert not store.publish(checkpoint(tmp_path, 1, **facts), "a")
    assert store.names() == set()


def test_a_sweep_leaves_what_is_needed(tmp_path, store):
    for name in "abc":
        store.publish(checkpoint(tmp_path, 1), name)
    seen = store.names()
    store.publish(checkpoint(tmp_path, 1), "d")  # by a trial, after it was asked what is needed
    store.sweep({"b", "z"}, seen)
    assert store.names() == {"b", "d"}
    store.sweep({"b", "z"})
    assert store.names() == {"b"}
    store.sweep(())
    assert list(store.folder.iterdir()) == []
    Store(tmp_path / "none", VERSIONS).sweep(())


def test_what_a_killed_process_left_is_tidied_up(tmp_path, store):
    for name in "ab":
        store.publish(checkpoint(tmp_path, 1), name)
    (store.folder / ".partial-c-1").mkdir()
    (store["b"]).rename(store.folder / ".trash-b")
    (store.folder / "torn").mkdir()
    assert store.names() == {"a"}
    store.tidy()
    assert [entry.name for entry in store.folder.iterdir()] == ["a"]
    Store(tmp_path / "none", VERSIONS).tidy()


def test_a_manifest_that_is_written_anew_is_of_the_checkpoint_alone(tmp_path, store):
    first = checkpoint(tmp_path, 1)
    store.publish(first, "a")
    (first / "record.json").unlink()
    (first / "record.json").write_text("{}")  # as somebody would who changes it on purpose
    seal(first)
    assert store.whole("a")
