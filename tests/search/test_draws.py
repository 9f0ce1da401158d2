"""A study that goes on with a space that has changed: what Optuna can take, and what is refused at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from dbf_ray.config import Config, with_overrides
from dbf_ray.errors import ConfigError
from dbf_ray.search import choosing
from dbf_ray.search.optuna_study import open_study
from dbf_ray.search.settings import Settings
from dbf_ray.search.spaces import DrawError, load_space
from dbf_ray.search.study import Study, rehearse
from tests.search.begins import four_stages

Opened = Callable[..., Study]
SPACE = """
BASELINES = []
def space(trial):
    x = {draw}
    return {{"freezing.policy": "step", "freezing.rho": {rho}}}
"""
RHO = "trial.suggest_int('rho', 2, 5)"


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens the study with ``x`` drawn as said, as a new process would."""

    def opening(draw: str, rho: str = RHO, name: str = "test") -> Study:
        file = tmp_path / "space.py"
        file.write_text(SPACE.format(draw=draw, rho=rho))
        settings = Settings(with_overrides(Config(), {"training.epochs": 6}), four_stages)
        return Study(open_study(tmp_path / "study.db", name, trials=8, seed=0), load_space(file), settings)

    return opening


def train(study: Study, count: int) -> int:
    """Trains ``count`` trials at most; how many it were."""
    for done in range(count):
        if (asked := study.ask()) is None:
            return done
        assert study.tell(asked.number, {"map50": 0.1 + 0.01 * done, "compute_ratio": 0.5})
    return count


CHOICES = "trial.suggest_categorical('x', {})".format
REFUSED = {
    "a choice more": (CHOICES(["step", "front"]), CHOICES(["step", "front", "back"])),
    "a choice less": (CHOICES(["step", "front"]), CHOICES(["step"])),
    "another order": (CHOICES(["step", "front"]), CHOICES(["front", "step"])),
    "1 to true": (CHOICES([1, 2]), CHOICES([True, 2])),
    "1 to 1.0": (CHOICES([1, 2]), CHOICES([1.0, 2])),
    "1 to text": (CHOICES([1, 2]), CHOICES(["1", 2])),
    "integer to float": ("trial.suggest_int('x', 1, 9)", "trial.suggest_float('x', 1, 9)"),
    "float to choices": ("trial.suggest_float('x', 1, 9)", CHOICES([1.0, 9.0])),
    "choices to integer": (CHOICES([1, 2]), "trial.suggest_int('x', 1, 2)"),
    "log": ("trial.suggest_float('x', 1, 9)", "trial.suggest_float('x', 1, 9, log=True)"),
    "wider numbers": ("trial.suggest_float('x', 1, 9)", "trial.suggest_float('x', 1, 10)"),
    "narrower": ("trial.suggest_int('x', 1, 9)", "trial.suggest_int('x', 3, 4)"),
    "steps": ("trial.suggest_int('x', 1, 9)", "trial.suggest_int('x', 1, 9, step=4)"),
    "a parameter less": (CHOICES(["a", "b"]), "'a'"),
    "no log": ("trial.suggest_int('x', 1, 9, log=True)", "trial.suggest_int('x', 1, 9)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_optuna_cannot_take_is_refused_at_once_and_nothing_is_written(
    opened: Opened, tmp_path: Path, case: str
) -> None:
    before, now = REFUSED[case]
    study = opened(before)
    train(study, 2)
    study.ask()  # left running, as by a kill
    file = (tmp_path / "study.db").read_bytes()
    with pytest.raises(ConfigError) as refused:
        opened(now)
    line = str(refused.value)
    assert str(tmp_path / "space.py") in line
    assert "the study 'test' has drawn 'x' from " in line
    assert ("in the same order" in line) == (case == "another order")
    assert (tmp_path / "study.db").read_bytes() == file


def test_both_next_steps_of_the_refusal_work(opened: Opened) -> None:
    train(opened(CHOICES(["a", "b"])), 1)
    assert train(opened(CHOICES(["a", "b"])), 1) == 1
    assert train(opened(CHOICES(["a", "b", "c"]), name="other"), 1) == 1


def test_the_refusal_says_what_it_was_and_what_it_is(opened: Opened) -> None:
    train(opened(CHOICES(["step", "front"])), 1)
    with pytest.raises(
        ConfigError,
        match=r"has drawn 'x' from the choices \['step', 'front'\], and now it is the choices \['step', "
        r"'front', 'back'\]; draw it as before to continue it, or give another --study",
    ):
        opened(CHOICES(["step", "front", "back"]))


GOES_ON = {
    "wider": ("trial.suggest_int('x', 1, 9)", "trial.suggest_int('x', 1, 20)"),
    "wider in steps": ("trial.suggest_int('x', 5, 9, step=4)", "trial.suggest_int('x', 1, 13, step=4)"),
    "one that depends on it": (
        "trial.suggest_int('y', 0, trial.suggest_int('x', 1, 9))",
        "trial.suggest_int('y', 0, trial.suggest_int('x', 0, 20))",
    ),
    "other code": (CHOICES([1, 2]), CHOICES([1, 2]) + " + 0"),
}


@pytest.mark.parametrize("case", GOES_ON)
def test_what_optuna_can_take_goes_on(opened: Opened, case: str) -> None:
    before, now = GOES_ON[case]
    train(opened(before, "trial.suggest_int('rho', 2, 3)"), 2)
    study = opened(now)
    assert train(study, 2) == 2
    assert {trial.state for trial in study.optuna.trials} == {TrialState.COMPLETE}


@pytest.mark.parametrize("now", [f"({CHOICES([1, 2])}, trial.suggest_float('y', 0, 1))", CHOICES([1, 2])])
def test_a_parameter_that_comes_or_goes_is_refused_though_nothing_was_trained_with_it(
    opened: Opened, now: str
) -> None:
    both = f"{CHOICES([1, 2])} == 1 and trial.suggest_float('y', 0, 1)"
    train(opened(both), 1)
    with pytest.raises(ConfigError, match=r"drawn 'y'.*, and now it is .*; draw it as before to continue"):
        opened(now)


def test_a_change_in_a_branch_that_chance_misses_is_found_by_what_was_drawn_before(opened: Opened) -> None:
    """One draw of a thousand comes into the branch; the earlier trial did."""
    rare = "(trial.suggest_int('n', 1, 1000) == 7) and " + CHOICES(["a", "b"])
    study = opened(rare)
    study.optuna.enqueue_trial({"n": 7, "x": "a"})
    train(study, 1)
    with pytest.raises(ConfigError, match="has drawn 'x' from"):
        opened(rare.replace("'b'", "'c'"))


def test_what_is_found_only_while_searching_ends_the_search_with_one_failed_trial(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(
        f"trial.suggest_int('n', 1, 10**6) == 7 and {CHOICES(['a', 'b'])} or "
        f"trial.suggest_int('n', 1, 10**6) == 8 and {CHOICES(['c'])}"
    )
    for n in (7, 8):
        study.optuna.enqueue_trial({"n": n})
    assert train(study, 1) == 1
    with pytest.raises(
        DrawError, match=r"'x' is drawn from the choices \['a', 'b'\] and from the choices \['c'\]"
    ):
        study.ask()
    assert [trial.state for trial in study.optuna.trials] == [TrialState.COMPLETE, TrialState.FAIL]


UNKEPT = {
    "1 and true": (CHOICES([1, True]), "1 and True of 'x' are equal in Python"),
    "1 and 1.0": (CHOICES([1.0, "a", 1]), r"1\.0 and 1 of 'x' are equal"),
    "tuples": (CHOICES([(1, 2), (3, 4)]), r"'x' has \(1, 2\) of type tuple"),
    "a path": ("trial.suggest_categorical('x', [__import__('pathlib').Path('a')])", "of type PosixPath"),
    "other choices each time": (
        "trial.suggest_categorical('x', list(range(trial.suggest_int('n', 2, 9))))",
        "'x' is drawn from the choices .* and from the choices",
    ),
}


@pytest.mark.parametrize("case", UNKEPT)
def test_choices_that_a_study_cannot_keep_are_refused_before_the_first_trial(
    opened: Opened, case: str
) -> None:
    draw, words = UNKEPT[case]
    with pytest.raises(ConfigError, match=words):
        opened(draw)


def test_choices_of_mixed_types_that_can_be_told_apart_are_drawn(opened: Opened) -> None:
    mixed = CHOICES([None, True, 2, 0.5, "front", [1, 2]])
    assert train(opened(mixed), 2) == 2
    assert train(opened(mixed), 1) == 1


def test_a_new_space_is_refused_before_there_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "space.py"
    file.write_text(SPACE.format(draw=CHOICES([1, True]), rho=RHO))
    with pytest.raises(ConfigError):
        rehearse(load_space(file), Settings(Config(), four_stages))
    assert os.listdir(tmp_path) == ["space.py"]


def test_a_refused_space_does_not_bind_a_study_to_its_configuration(opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        opened(CHOICES([1, True]))
    settings = Settings(with_overrides(Config(), {"training.epochs": 3}), four_stages)
    (tmp_path / "space.py").write_text(SPACE.format(draw="0", rho=RHO))
    study = open_study(tmp_path / "study.db", "test", trials=8, seed=0)
    assert train(Study(study, load_space(tmp_path / "space.py"), settings), 1) == 1


def test_a_space_that_is_valid_for_chance_alone_ends_after_few_trials(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Valid while it is tried, and never for a trial: the loop that once wrote hundreds of failed trials."""
    study = opened("0")
    real = study.choosing.pool._draws.overrides

    def raising(trial, config):
        if trial.study is study.optuna:
            raise ConfigError("not this time")
        return real(trial, config)

    monkeypatch.setattr(study.choosing.pool._draws, "overrides", raising)
    assert study.ask() is None
    assert len(study.optuna.trials) <= 2 * choosing.SAMPLER_TRIES
    assert "not this time" in study.choosing.last_invalid
