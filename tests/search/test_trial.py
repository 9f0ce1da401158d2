"""A trial's process, without Tune: where it begins, and what it publishes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dbf_ray.cluster import train
from dbf_ray.config import Config, to_dict
from dbf_ray.search import trial
from dbf_ray.search.store import Store
from dbf_ray.search.trial import TrialSetup
from dbf_ray.training.checkpoint import save_checkpoint
from tests.training.damage import flipped

VERSIONS = {"dbf-ray": "1", "torch": "2"}


def save(trials: Path, number: int, epochs: int, versions: Mapping[str, str] = VERSIONS) -> Path:
    """A checkpoint of a trial, with nothing in it but how far it is."""
    facts = {"name": f"s-{number}", "pieces": [{"epoch": 0, "versions": versions}]}
    done = [{"epoch": epoch} for epoch in range(epochs)]
    record = {"config": to_dict(Config()), "facts": facts, "epochs": done}
    return save_checkpoint(trials / str(number) / "checkpoints", epochs, {"epoch": epochs}, record)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """States after two and four epochs, of trial 3."""
    store = Store(tmp_path / "states", VERSIONS)
    for epochs in (2, 4):
        assert store.publish(save(tmp_path, 3, epochs), f"after{epochs}")
    return store


def go_on(trials: Path, store: Store, keep: Mapping[int, str] = {}, **more: Any) -> dict[str, Any]:
    """What trial 4 is trained with, whose way has both states; it does two epochs more."""
    seen: dict[str, Any] = {}

    def run(config: Config, *, resume: Path | None, begin: Path | None, on_epoch: Any, **_: Any) -> Any:
        seen.update(resume=resume, begin=begin)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ray.tune.report", lambda _: None)
            done = 0 if (start := resume or begin) is None else trial.epochs_done(start)
            for epoch in (done, done + 1):
                on_epoch({"epoch": epoch}, save(trials, 4, epoch + 1, **more))
        return {}

    states = {"begin": ["after4", "after2"], "keep": [list(pair) for pair in keep.items()]}
    assignment = {"number": 4, "config": to_dict(Config()), **states}
    trial._train(assignment, TrialSetup("s", str(trials), store, run=run), trials / "4")
    return seen


def test_it_begins_at_the_deepest_state_and_publishes_what_it_is_to_keep(tmp_path, store):
    assert go_on(tmp_path, store, {5: "mine5"}) == {"resume": None, "begin": store["after4"]}
    assert store.names() == {"after2", "after4", "mine5"}
    assert store.whole("mine5")


def test_its_own_checkpoint_is_taken_where_it_is_as_deep(tmp_path, store):
    save(tmp_path, 4, 3)
    assert go_on(tmp_path, store)["begin"] == store["after4"]
    shutil.rmtree(tmp_path / "4")
    own = save(tmp_path, 4, 4)
    assert go_on(tmp_path, store) == {"resume": own, "begin": None}


def test_one_that_was_killed_before_it_published_does_so_when_it_goes_on(tmp_path, store):
    own = save(tmp_path, 4, 5)
    assert go_on(tmp_path, store, {5: "mine5", 6: "mine6"})["resume"] == own
    assert store.names() == {"after2", "after4", "mine5", "mine6"}


def test_a_worker_group_that_was_killed_before_it_published_does_so_when_it_goes_on(
    tmp_path, store, monkeypatch
):
    own = save(tmp_path, 4, 5)
    context = SimpleNamespace(get_world_rank=lambda: 0)
    monkeypatch.setattr("ray.train.get_context", lambda: context)
    monkeypatch.setattr(train, "checkpoint_to_resume", lambda *_: contextlib.nullcontext(own))
    seen: list[Path | None] = []

    def run(config: Config, *, resume: Path | None, begin: Path | None, **_: Any) -> Any:
        seen.extend((resume, begin))
        return {}

    keeping = trial.Keeping(store, {5: "mine5"})
    begin = str(store["after4"])
    job = train.Job(to_dict(Config()), str(tmp_path / "4"), begin=begin, after_epoch=keeping, run=run)
    train._train(job)
    assert seen == [own, None]
    assert store.names() == {"after2", "after4", "mine5"}


def test_a_trial_that_failed_leaves_what_it_has_trained(tmp_path, store):
    names = [f"mine{epoch}" for epoch in range(7)]
    trial.leave(store, tmp_path / "4", names)  # nothing
    save(tmp_path, 4, 3)
    save(tmp_path, 4, 5)
    trial.leave(store, tmp_path / "4", names)
    assert store.names() == {"after2", "after4", "mine5"}


def test_a_state_that_is_torn_or_gone_is_passed_over(tmp_path, store):
    flipped("checkpoint.pt")(store["after4"])
    with pytest.warns(UserWarning, match=r"state after4 is not whole in .*; one before it is used"):
        assert go_on(tmp_path, store) == {"resume": None, "begin": store["after2"]}
    store.sweep(())
    with pytest.warns(UserWarning, match="state after2 is not whole"):
        assert go_on(tmp_path / "other", store) == {"resume": None, "begin": None}


def test_where_its_own_checkpoints_are_torn_the_store_helps(tmp_path, store):
    flipped("record.json")(save(tmp_path, 4, 5))
    with pytest.warns(UserWarning, match=r"work of .*4 is lost: .*epoch-00005 \(record.json is not"):
        assert go_on(tmp_path, store) == {"resume": None, "begin": store["after4"]}


def test_a_checkpoint_that_other_versions_trained_is_no_state(tmp_path, store):
    go_on(tmp_path, store, {5: "mine5"}, versions={"dbf-ray": "0", "torch": "2"})
    assert store.names() == {"after2", "after4"}


def test_a_training_does_not_end_where_nothing_can_be_kept(tmp_path, store, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Store, "publish", full)
    with pytest.warns(UserWarning, match="state mine5 cannot be kept for other trials: no space left"):
        go_on(tmp_path, store, {5: "mine5"})
