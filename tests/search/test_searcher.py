"""How many trials the searcher starts, without Tune: failed ones are made up for, within bounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ray.tune.search import Searcher

from dbf_ray.config import Config, with_overrides
from dbf_ray.search.optuna_study import open_study
from dbf_ray.search.searcher import IN_A_ROW, SPARE, StudySearcher
from dbf_ray.search.settings import Settings
from dbf_ray.search.spaces import DrawError, SearchSpace
from dbf_ray.search.study import Study
from tests.search.begins import four_stages

SUMMARY = {"map50": 0.5, "compute_ratio": 0.7}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    space = SearchSpace(
        tmp_path / "space.py", lambda trial: {"seed": trial.suggest_int("seed", 1, 10**6)}, []
    )
    return Study(
        open_study(tmp_path / "study.db", "s", trials=8, seed=0),
        space,
        Settings(with_overrides(Config(), {}), four_stages),
    )


def searching(study: Study, wanted: int) -> StudySearcher:
    return StudySearcher(
        study, wanted, lambda asked: None, lambda number, report: None, lambda number, report, failure: None
    )


def end(searcher: StudySearcher, trial: str, **outcome: object) -> None:
    searcher.on_trial_complete(trial, {"outcome": json.dumps(outcome)})


def test_a_failed_trial_is_made_up_for(study):
    searcher = searching(study, 2)
    assert isinstance(searcher.suggest("a"), dict)
    assert isinstance(searcher.suggest("b"), dict)
    assert searcher.suggest("c") is None  # two are running: enough unless one fails
    end(searcher, "a", failure="loss is not finite")
    assert isinstance(searcher.suggest("c"), dict)
    assert searcher.suggest("d") is None
    end(searcher, "b", summary=SUMMARY)
    end(searcher, "c", summary={**SUMMARY, "map50": None})
    assert isinstance(searcher.suggest("d"), dict)
    end(searcher, "d", summary=SUMMARY)
    assert searcher.suggest("e") == Searcher.FINISHED
    assert len(study.complete()) == 2


def test_failures_one_after_the_other_end_it_however_many_trials_are_wanted(study):
    searcher, started = searching(study, 500), 0
    while searcher.suggest(str(started)) != Searcher.FINISHED:
        end(searcher, str(started), failure="no such file: weights.pth")
        started += 1
    assert started == searcher.failed_in_a_row == IN_A_ROW
    again = searching(study, 500)
    for number in range(3 * IN_A_ROW):  # one that ends well between them, and it goes on
        assert isinstance(again.suggest(str(number)), dict)
        if number % IN_A_ROW == 0:
            end(again, str(number), summary=SUMMARY)
        else:
            end(again, str(number), failure="a loss is not finite")


def test_a_space_that_is_refused_while_trials_run_lets_them_end(study, monkeypatch):
    def refusing(room):
        raise DrawError("other choices")

    searcher = searching(study, 4)
    assert isinstance(searcher.suggest("a"), dict)
    monkeypatch.setattr(study, "ask", refusing)
    assert searcher.suggest("b") == searcher.suggest("c") == Searcher.FINISHED
    end(searcher, "a", summary=SUMMARY)
    assert str(searcher.refused) == "other choices"
    assert len(study.complete()) == 1


def test_where_everything_fails_it_ends(study):
    wanted, started = 4, 0
    searcher = searching(study, wanted)
    while searcher.suggest(str(started)) != Searcher.FINISHED:
        end(searcher, str(started), failure="out of memory")
        started += 1
    assert started == wanted + SPARE
    assert not study.exhausted
