"""Repeats of the front with further seeds: decided once, each seed a tree of its own with shared beginnings,
also when the search is killed on the way. The real study and store, trainings that only write checkpoints.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dbf_ray.files import write_json
from dbf_ray.reports import study_result
from dbf_ray.search.repeats import Repeat, Repeats
from dbf_ray.search.trial import Keeping, _deepest, epochs_done
from dbf_ray.training.checkpoint import newest_whole, save_checkpoint
from tests.search.fake_search import VERSIONS, FakeSearch
from tests.search.test_tuner import RHO

EPOCHS = 6


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("files", "search.store", "training.checkpoint", "training.manifest"):
        monkeypatch.setattr(f"dbf_ray.{module}.flush", lambda _: None)


def opened(folder: Path, trained: Counter) -> tuple[FakeSearch, Repeats]:
    fake = FakeSearch(folder, RHO, EPOCHS, trained)
    repeats = Repeats(fake.study, fake.trials)
    repeats.left(3)  # as a search does when it begins
    fake.run()
    return fake, repeats


def train(fake: FakeSearch, repeats: Repeats, seeds: int, workers: int, most: int) -> int:
    """Epoch by epoch of each running repeat; ends when nothing is left, or after ``most`` epochs."""
    left, running, steps = repeats.left(seeds), dict[str, tuple[Repeat, Keeping, int]](), 0
    while left or running:
        for repeat in [*left]:
            if len(running) < workers and (given := repeats.begin(repeat)) is not None:
                left.remove(repeat)
                folder = fake.trials / repeat.name / "checkpoints"
                own, found = newest_whole(folder), _deepest(fake.store, given["begin"])
                done = max(epochs_done(path) for path in (own, found) if path) if own or found else 0
                running[repeat.name] = repeat, Keeping(fake.store, dict(given["keep"])), done
        assert running, "those that are left wait for nobody"
        for name, (repeat, keeping, done) in list(running.items()):
            if steps == most:
                return steps
            if done < EPOCHS:
                done, steps = done + 1, steps + 1
                fake.trained[repeat.setting.states[done], 0] += 1
                record = {"facts": {"name": name, "pieces": [{"versions": VERSIONS}]}, "epochs": [{}] * done}
                folder = fake.trials / name / "checkpoints"
                keeping({"epoch": done - 1}, save_checkpoint(folder, done, {"epoch": done}, record))
                fake.study.reached(name, done)
            running[name] = repeat, keeping, done
            if done == EPOCHS:
                write_json(fake.trials / name / "summary.json", {"map50": 0.5, "epochs": EPOCHS})
                repeats.end(repeat)
                del running[name]
    return steps


@pytest.mark.parametrize("killed_after", [3, 11, 99])
def test_each_state_is_trained_once_whenever_it_was_killed(tmp_path: Path, killed_after: int) -> None:
    trained: Counter = Counter()
    fake, repeats = opened(tmp_path, trained)
    result = study_result("s", fake.study.rows(fake.trials))
    trained.clear()
    assert repeats.decide(result, 3, fake.study.baselines())
    assert not repeats.decide(result, 3, fake.study.baselines())
    decided = repeats.decided()
    assert {seed for _, seed in decided} == {1, 2}
    assert {number for number, _ in decided} >= {*result["front"], *fake.study.baselines()}
    train(fake, repeats, 3, 2, killed_after)
    again, repeats = opened(tmp_path, trained)
    assert repeats.decided() == decided
    if killed_after < 99:
        assert len(again.study.others) > 0  # what they begin at is kept
    train(again, repeats, 3, 2, 999)
    states = {state for (state, _) in trained}
    assert set(trained.values()) == {1}
    wanted = {
        name for number, seed in decided for name in repeats._setting(rows(again)[number], seed).states[1:]
    }
    assert states == wanted
    assert len(states) < EPOCHS * len(decided)
    assert repeats.left(3) == []
    (entry, _) = repeats.entries({"number": 0}, ("map50",))
    assert (entry["seed"], entry["state"], entry["map50"]) == (1, "COMPLETE", 0.5)
    assert repeats.decide(result, 4, set())  # one seed more
    assert {repeat.seed for repeat in repeats.left(4)} == {3}


def rows(fake: FakeSearch) -> dict[int, dict]:
    return {row["number"]: row for row in fake.study.rows(fake.trials)}
