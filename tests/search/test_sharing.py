"""Trials begin at each other's states: how many epochs a study trains, with any number of workers, and
wherever it is killed.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.search.sharing import Sharing, Visit
from dbf_ray.training.checkpoint import newest_whole
from tests.search.fake_search import FakeSearch

SPACES = Path(__file__).parents[2] / "search_spaces"
RHO = SPACES / "rho.py"
Trained = Counter[tuple[str, int]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("files", "search.store", "training.checkpoint", "training.manifest"):
        monkeypatch.setattr(f"dbf_ray.{module}.flush", lambda _: None)
    # draws without a new setting, after which a space of few has none: hundreds of them take seconds
    monkeypatch.setattr("dbf_ray.search.pool.STALE", (60, 60))
    monkeypatch.setattr("dbf_ray.search.choosing.RANDOM_TRIES", 60)


def owners(trained: Trained) -> Counter[str]:
    """How many trials have trained each state."""
    return Counter(state for state, _ in trained)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_exhaustive_search_of_rho_trains_each_beginning_once(workers: int, tmp_path: Path) -> None:
    trained = Trained()
    search = FakeSearch(tmp_path, RHO, 12, trained)
    search.run(workers)
    assert len(search.values()) == 13
    assert (trained.total(), set(trained.values())) == (90, {1})
    assert search.largest <= 16
    assert search.store.names() == set()  # nothing is left that could begin there


def test_a_state_that_is_published_while_the_search_sweeps_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = FakeSearch(tmp_path, RHO, 12, Trained())
    search.run(1, most_trials=1)
    assert search.store.names(), "else nothing is swept"
    checkpoint = newest_whole(tmp_path / "trials" / "0" / "checkpoints")
    assert checkpoint is not None
    needed = search.study.sharing.needed

    def meanwhile(*asked: Any) -> set[str]:
        search.store.publish(checkpoint, "late")
        return needed(*asked)

    monkeypatch.setattr(search.study.sharing, "needed", meanwhile)
    search.study.sweep()
    assert "late" in search.store.names()


def test_what_is_shared_is_in_bounds_and_stays_for_more_trials(tmp_path: Path) -> None:
    trained = Trained()
    search = FakeSearch(tmp_path, SPACES / "policies.py", 12, trained, most=8)
    search.run(2, most_trials=8)
    assert search.largest <= 8 + 2  # what running trials begin at may not be wanted by others any more
    assert 0 < len(search.store.names()) <= 8
    before = trained.total()
    assert before < 8 * 12
    more = FakeSearch(tmp_path, SPACES / "policies.py", 12, trained, most=8)
    more.run(2, most_trials=8)
    assert len(more.values()) == 16
    assert trained.total() - before < 8 * 12 - 10  # some began where the first eight had been
    alone = FakeSearch(tmp_path / "alone", SPACES / "policies.py", 6, unshared := Trained(), most=0)
    alone.run(2, most_trials=5)
    assert (unshared.total(), alone.largest) == (5 * 6, 0)


def some(folder: Path, periods: Sequence[int], baselines: Sequence[dict[str, Any]] = ()) -> Path:
    """A small space."""
    space = folder / "some.py"
    space.write_text(
        f"BASELINES = {[*baselines]}\ndef space(trial):\n    return {{'freezing.policy': 'step', "
        f"'freezing.rho': trial.suggest_categorical('rho', {[*periods]})}}"
    )
    return space


class Kill(BaseException):
    """The process is gone."""


def dying(left: list[int], real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Kill
        return real(*arguments, **more)

    return call


LINK = [(os, "link"), (Path, "rename"), (Path, "mkdir"), (shutil, "rmtree"), (os, "replace")]
WRITES = ("create_new_trial", "set_trial_user_attr", "set_trial_state_values")


def searched(
    folder: Path, trained: Trained, left: list[int], epochs: int, workers: int, space: Path = RHO
) -> Iterator[FakeSearch]:
    """The search, if it comes through without the process being killed at the operation after ``left``."""
    with pytest.MonkeyPatch.context() as patch:
        for place, name in LINK:
            patch.setattr(place, name, dying(left, getattr(place, name)))
        try:
            search = FakeSearch(folder, space, epochs, trained)
            storage = search.study.optuna._storage
            for name in WRITES:
                patch.setattr(storage, name, dying(left, getattr(storage, name)))
            search.run(workers)
        except Kill:
            return
    yield search


def test_wherever_it_is_killed_no_epoch_is_in_two_trials(tmp_path: Path) -> None:
    """Killed at a later operation each time: publish, link, rename, sweep, tell, until one comes through."""
    whole = FakeSearch(tmp_path / "whole", RHO, 5, Trained())
    whole.run()
    trained = Trained()
    for kills, last in enumerate(itertools.count(2, 9)):
        for search in searched(tmp_path / "killed", trained, [last], 5, workers=2):
            assert search.values() == whole.values()
            assert search.store.names() == set()
            assert list(search.store.folder.iterdir()) == []
            assert set(owners(trained).values()) == {1}
            assert owners(trained).total() == whole.trained.total()
            assert trained.total() <= whole.trained.total() + 2 * kills  # an epoch may come twice in a trial
            assert kills > 5
            return


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_killed_at_any_one_operation_the_same_command_ends_with_the_same(
    workers: int, tmp_path: Path
) -> None:
    space = some(tmp_path, (2, 3, 4), [{"freezing.policy": "full"}])
    whole = FakeSearch(tmp_path / "whole", space, 4, Trained())
    whole.run()
    for last in itertools.count():
        folder, trained = tmp_path / str(last), Trained()
        if any(True for _ in searched(folder, trained, [last], 4, workers, space)):
            break
        again = FakeSearch(folder, space, 4, trained)
        again.run(workers)
        assert list(again.store.folder.iterdir()) == [], last
        assert again.values() == whole.values(), last
        assert owners(trained).total() == whole.trained.total(), last
        assert trained.total() <= whole.trained.total() + workers, last
        shutil.rmtree(folder)
    assert last > 50


def test_what_a_trial_that_failed_has_trained_is_trained_by_nobody_else(tmp_path: Path) -> None:
    trained, space = Trained(), some(tmp_path, (6, 8))  # one training until epoch 6
    search = FakeSearch(tmp_path, space, 8, trained, fails={0: 4})
    search.run(2, most_trials=2)
    assert [row["state"] for row in search.study.rows(search.trials)] == ["FAIL", "COMPLETE"]
    assert (trained.total(), set(owners(trained).values())) == (8, {1})
    again = FakeSearch(tmp_path, space, 8, trained)  # goes on where the other was at 6
    again.run(2, most_trials=1)
    assert len(again.values()) == 2
    assert set(owners(trained).values()) == {1}
    assert again.store.names() == set()


def test_nothing_is_shared_where_no_state_is_to_be_kept_though_some_are_there() -> None:
    names = [f"a{epoch}" for epoch in range(4)]
    for every in (False, True):
        sharing = Sharing(0, every=every)
        assert sharing.begin(0, names, [names], {"a1"}).begins == ()
        assert not sharing.waits(names, {"a1"})


def test_what_a_running_trial_begins_at_is_never_swept() -> None:
    names = [f"a{epoch}" for epoch in range(5)]
    sharing = Sharing(4)
    assert sharing.begin(0, names, [], {"a2", "a3"}) == Visit(("a3", "a2"), {})
    assert sharing.needed([], {"a2", "a3"}) == {"a3"}
    sharing.end(0)
    assert sharing.needed([], {"a2", "a3"}) == set()


def test_what_a_trial_is_about_to_reach_is_waited_for_until_it_was_there_or_the_trial_ends() -> None:
    way, other = [f"a{epoch}" for epoch in range(6)], ["a0", "a1", "a2", "a3", "b4", "b5"]
    sharing = Sharing(4)
    assert sharing.begin(0, way, [other], set()).keep == {3: "a3"}
    assert sharing.waits(other, set())
    sharing.reached(0, 2)
    assert sharing.waits(other, {"a2"})
    sharing.reached(0, 3)
    assert not sharing.waits(other, {"a3"})
    assert not sharing.waits(other, set())  # it could not be published
    sharing.end(0)
    assert not sharing.waits(other, set())


def test_what_a_trial_publishes_when_it_goes_on_is_waited_for_until_its_next_epoch() -> None:
    way, other = [f"a{epoch}" for epoch in range(6)], ["a0", "a1", "a2", "a3", "b4", "b5"]
    sharing = Sharing(4)
    assert sharing.begin(0, way, [other], {"a2"}, done=3).keep == {3: "a3"}  # killed before it published
    assert sharing.waits(other, {"a2"})
    assert not sharing.waits(other, {"a2", "a3"})
    sharing.reached(0, 4)
    assert not sharing.waits(other, {"a2"})


def test_a_trial_that_is_further_than_a_running_one_does_not_wait_for_it() -> None:
    way, other = [f"a{epoch}" for epoch in range(6)], ["a0", "a1", "a2", "a3", "b4", "b5"]
    sharing = Sharing(4)
    assert sharing.begin(0, way, [other], set()).keep == {3: "a3"}
    assert sharing.waits(other, set(), done=2)
    assert not sharing.waits(other, set(), done=3)


def test_all_states_are_kept_where_that_is_asked_for() -> None:
    names = [f"a{epoch}" for epoch in range(4)]
    sharing = Sharing(1, every=True)
    assert sharing.begin(0, names, [], {"a1"}).keep == {2: "a2", 3: "a3"}
    assert sharing.needed([], {"a1", "x"}) == {"a1", "x"}
