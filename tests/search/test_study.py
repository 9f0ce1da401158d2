"""The study's rules, without Ray: what is asked, what is told, and what an earlier process left behind."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from optuna.trial import TrialState

from dbf_ray.config import Config, with_overrides
from dbf_ray.errors import ConfigError, WeightsError
from dbf_ray.search.optuna_study import open_study
from dbf_ray.search.settings import Settings
from dbf_ray.search.spaces import load_space
from dbf_ray.search.study import Study, Trial
from tests.search.begins import four_stages

RHO = Path(__file__).parents[2] / "search_spaces" / "rho.py"
EPOCHS = 6
WIDE = """
BASELINES = [{"freezing.policy": "full"}, {"freezing.policy": "frozen"}]
def space(trial):
    return {"freezing.policy": "step", "freezing.rho": trial.suggest_int("rho", 1, 20)}
"""


def summary_of(asked: Trial) -> dict:
    prefixes = len([epoch for epoch in range(EPOCHS) if asked.setting.rho and epoch % asked.setting.rho == 0])
    trained = {"full": EPOCHS, "frozen": 0}.get(asked.setting.policy, prefixes)
    return {"map50": 0.5 + 0.05 * trained, "map50_best": 0.9, "compute_ratio": 0.4 + 0.1 * trained}


@pytest.fixture
def opened(tmp_path):
    """Opens the same study file again and again, as new processes would."""

    def opening(space: str | Path = RHO, recover=lambda number: None, **overrides) -> Study:
        file = space if isinstance(space, Path) else tmp_path / "space.py"
        if isinstance(space, str):
            file.write_text(space)
        config = with_overrides(Config(), {"training.epochs": EPOCHS, **overrides})
        study = open_study(tmp_path / "study.db", "test", trials=8, seed=0)
        return Study(study, load_space(file), Settings(config, four_stages), recover=recover)

    return opening


def train(study: Study, count: int | None = None) -> list[Trial]:
    done: list[Trial] = []
    while count is None or len(done) < count:
        asked = study.ask()
        if asked is None:
            break
        assert study.tell(asked.number, summary_of(asked))
        done.append(asked)
    return done


def states(study: Study) -> list[TrialState]:
    return [trial.state for trial in study.optuna.trials]


def test_baselines_come_first_and_once_and_never_again(opened):
    first = train(opened(), 3)
    assert [asked.setting.policy for asked in first] == ["full", "frozen", "step"]
    again = opened()
    assert again.baselines_done()
    more = train(again, 2)
    assert [asked.setting.policy for asked in more] == ["step", "step"]
    assert [row["policy"] for row in again.rows(Path())].count("full") == 1


@pytest.mark.parametrize("space", [RHO, WIDE], ids=["rho", "wide"])
def test_each_setting_is_trained_once_and_the_search_ends_when_none_is_left(opened, space):
    study = opened(space)
    done = train(study)
    assert study.exhausted
    timelines = {
        tuple(epoch % asked.setting.rho == 0 for epoch in range(EPOCHS))
        for asked in done
        if asked.setting.rho
    }
    assert len(timelines) == len(done) - 2 == EPOCHS - 1  # rho 2..6; 1 is full, more than 6 is 6
    assert len({asked.setting.key for asked in done}) == len(done)
    assert len(study.complete()) == len(done)


def test_a_duplicate_is_recorded_with_the_values_that_are_known_and_has_no_number(opened):
    study = opened(WIDE)
    done = {asked.setting.key: asked for asked in train(study)}
    duplicates = [trial for trial in study.optuna.trials if "duplicate_of" in trial.user_attrs]
    assert duplicates
    for trial in duplicates:
        original = done[trial.user_attrs["setting"]["key"]]
        assert trial.state == TrialState.COMPLETE
        assert trial.values == [summary_of(original)["map50"], summary_of(original)["compute_ratio"]]
        assert "number" not in trial.user_attrs
    assert [row["number"] for row in study.rows(Path())] == list(range(len(done)))


def test_a_duplicate_of_a_running_trial_is_not_trained_beside_it(opened):
    study = opened(
        "BASELINES = []\ndef space(trial):\n    return {'freezing.policy': 'step', 'freezing.rho': "
        "trial.suggest_int('rho', 6, 9)}"
    )
    running = study.ask()
    assert running is not None
    assert study.ask() is None
    assert study.exhausted
    assert [state for state in states(study) if state == TrialState.RUNNING] == [TrialState.RUNNING]
    assert study.tell(running.number, summary_of(running))
    assert TrialState.RUNNING not in states(study)


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        ({"map50": math.nan, "compute_ratio": 0.5}, "map50 must be a finite number, got nan"),
        ({"map50": None, "compute_ratio": 0.5}, "map50 must be a finite number, got None"),
        ({"map50": 0.5}, "compute_ratio must be a finite number, got None"),
        ({"map50": 0.5, "compute_ratio": math.inf}, "compute_ratio must be a finite number, got inf"),
        (None, "the trial ended without a result"),
    ],
)
def test_a_trial_without_finite_objectives_is_failed(opened, summary, reason):
    study = opened()
    asked = study.ask()
    assert not study.tell(asked.number, summary)
    assert states(study) == [TrialState.FAIL]
    assert study.rows(Path())[0]["failure"] == reason
    assert study.rows(Path())[0]["map50"] is None
    assert not study.baselines_done()
    assert study.optuna.best_trials == []


def test_a_training_that_was_stopped_is_no_result(opened):
    study = opened()
    asked = study.ask()
    assert not study.tell(asked.number, {**summary_of(asked), "stopped_early": True})
    assert study.rows(Path())[0]["failure"] == "the training was stopped before its last epoch"


def test_a_failed_setting_is_not_tried_again_by_the_same_process_but_by_the_next_as_the_same_trial(opened):
    study = opened()
    asked = study.ask()
    study.tell(asked.number, None, "loss is not finite")
    assert "full" not in [other.setting.policy for other in train(study)]
    again = opened()
    retried = again.ask()
    assert (retried.setting.policy, retried.number, retried.again) == ("full", asked.number, True)
    assert [row["state"] for row in again.rows(Path())][:2] == ["RUNNING", "COMPLETE"]
    assert again.tell(retried.number, summary_of(retried))
    rows = again.rows(Path())
    assert [row["number"] for row in rows] == list(range(len(rows)))
    assert rows[0]["state"] == "COMPLETE"
    assert "failure" not in rows[0]


def test_what_a_killed_process_left_running_goes_on_first_under_its_numbers(opened):
    study = opened()
    train(study, 2)
    left = [study.ask(), study.ask()]
    again = opened()
    assert again.interrupted == [asked.number for asked in left] == [2, 3]
    continued = train(again, 2)
    assert [(asked.number, asked.again) for asked in continued] == [(2, True), (3, True)]
    assert [asked.setting.key for asked in continued] == [asked.setting.key for asked in left]
    assert TrialState.RUNNING not in states(again)
    assert [row["number"] for row in again.rows(Path())] == [0, 1, 2, 3]
    assert opened().interrupted == []


def test_what_a_stopped_search_leaves_open_runs_nowhere_and_goes_on(opened):
    study = opened()
    train(study, 2)
    left = [study.ask(), study.ask()]
    study.book.put_back()
    states = [trial.state for trial in study.optuna.get_trials()]
    assert TrialState.RUNNING not in states
    assert states.count(TrialState.WAITING) >= 2
    again = opened()
    assert again.interrupted == [asked.number for asked in left] == [2, 3]
    assert {asked.setting.key for asked in train(again, 2)} == {asked.setting.key for asked in left}


def test_a_kill_before_an_interrupted_trial_went_on_loses_nothing(opened):
    """Two were interrupted; the process that took them up was killed with the first of them."""
    study = opened()
    train(study, 2)
    left = [study.ask(), study.ask()]
    assert opened().ask().number == left[0].number
    third = opened()
    assert [asked.number for asked in train(third, 2)] == [asked.number for asked in left]
    assert len(third.complete()) == 4
    assert opened().interrupted == []


def test_what_was_interrupted_goes_on_as_it_was_though_the_space_has_changed(opened):
    space = (
        "BASELINES = []\ndef space(trial):\n    return {{'freezing.policy': 'step', 'freezing.rho': "
        "trial.suggest_int('rho', 2, 3) + {}}}"
    )
    left = opened(space.format(0)).ask()
    again = opened(space.format(2))
    continued = again.ask()
    assert (continued.number, continued.setting.rho) == (left.number, left.setting.rho)
    assert {asked.setting.rho for asked in train(again)} == {4, 5}


def test_a_kill_while_something_is_drawn_leaves_no_trial(opened):
    study = opened()
    study.optuna.ask()
    study.optuna.enqueue_trial({"rho": 3})
    again = opened()
    assert states(again) == [TrialState.FAIL, TrialState.FAIL]
    assert again.rows(Path()) == []
    assert again.ask().number == 0


def test_wherever_a_search_is_killed_the_next_one_goes_on_and_loses_nothing(opened, monkeypatch):
    """Killed at a later write to the study's file each time, until one comes through."""
    space = (
        "BASELINES = [{'freezing.policy': 'full'}]\ndef space(trial):\n    return {'freezing.policy': "
        "'step', 'freezing.rho': trial.suggest_int('rho', 2, 3)}"
    )
    summaries: dict[int, dict] = {}  # files of trials that ended, whether or not they were told
    writes = ("create_new_trial", "set_trial_user_attr", "set_trial_param", "set_trial_state_values")

    class Kill(BaseException):
        pass

    complete: set[int] = set()
    for last in itertools.count(1, 2):
        study, left = opened(space, recover=summaries.get), [last]
        assert complete <= {trial.number for trial in study.complete()}

        def dying(real, left=left):
            def write(*arguments, **more):
                left[0] -= 1
                if left[0] < 0:
                    raise Kill
                return real(*arguments, **more)

            return write

        with monkeypatch.context() as patched:
            for name in writes:
                patched.setattr(study.optuna._storage, name, dying(getattr(study.optuna._storage, name)))
            try:
                while (asked := study.ask()) is not None:
                    summaries[asked.number] = summary_of(asked)
                    study.tell(asked.number, summaries[asked.number])
                break
            except Kill:
                complete = {trial.number for trial in study.complete()}
    assert last > 5
    end = opened(space, recover=summaries.get)
    assert not [state for state in states(end) if state in (TrialState.RUNNING, TrialState.WAITING)]
    keys = [trial.user_attrs["setting"]["key"] for trial in end.complete()]
    assert len(keys) == len(set(keys)) == 3
    assert [row["number"] for row in end.rows(Path())] == [0, 1, 2]


def test_interrupted_baselines_are_done_once(opened):
    study = opened()
    study.ask()
    study.ask()
    again = opened()
    done = train(again, 3)
    assert [(asked.setting.policy, asked.number, asked.again) for asked in done] == [
        ("full", 0, True),
        ("frozen", 1, True),
        ("step", 2, False),
    ]


def test_a_trial_that_ended_unrecorded_is_recorded(opened):
    study = opened()
    asked = study.ask()
    again = opened(recover=lambda number: summary_of(asked) if number == asked.number else None)
    assert again.interrupted == []
    assert [row["state"] for row in again.rows(Path())] == ["COMPLETE"]
    assert train(again, 1)[0].setting.policy == "frozen"


def test_a_trial_that_ended_unrecorded_without_an_objective_is_failed_once_and_its_setting_trained_again(
    opened,
):
    study = opened()
    asked = study.ask()
    again = opened(recover=lambda number: {"map50": None, "compute_ratio": 0.5})
    assert states(again) == [TrialState.FAIL]
    assert again.rows(Path())[0]["failure"] == "map50 must be a finite number, got None"
    assert again.interrupted == []
    anew = again.ask()
    assert (anew.setting.key, anew.number, anew.again) == (asked.setting.key, asked.number, True)


def test_a_study_goes_on_only_with_its_own_configuration(opened):
    train(opened(), 1)
    opened(**{"cluster.workers": 2, "search.trials": 99})
    with pytest.raises(ConfigError, match=r"it differs in training\.lr \(0\.0002, now 0\.001\)"):
        opened(**{"training.lr": 0.001})


def test_a_study_goes_on_only_with_its_own_baselines(opened):
    space = "BASELINES = {}\ndef space(trial):\n    return {{'freezing.policy': 'step', 'freezing.rho': {}}}"
    draw = "trial.suggest_int('rho', 2, 3)"
    full, frozen = ({"freezing.policy": policy} for policy in ("full", "frozen"))
    train(opened(space.format([full], draw)), 1)
    with pytest.raises(
        ConfigError, match=r"space\.py: .* other BASELINES, .*'frozen'} is new; give the same"
    ):
        opened(space.format([full, frozen], draw))
    with pytest.raises(ConfigError, match=r"'frozen'} is new, .*'full'} is gone; give the same"):
        opened(space.format([frozen], draw))
    wider = opened(space.format([full], "trial.suggest_int('rho', 2, 5)"))
    assert {asked.setting.rho for asked in train(wider)} == {2, 3, 4, 5}


def test_a_space_of_invalid_settings_is_refused(opened):
    with pytest.raises(
        ConfigError,
        match=r"space\.py: space\(trial\) must draw valid settings, but none of 50 was; .*freezing policy "
        r"'stp'",
    ):
        opened(
            "BASELINES = []\ndef space(trial):\n    return {'freezing.policy': "
            "trial.suggest_categorical('policy', ['stp'])}"
        )


def test_a_space_of_invalid_settings_is_refused_before_the_baselines_are_trained(opened):
    with pytest.raises(ConfigError, match=r"training\.lrr"):
        opened(
            "BASELINES = [{'freezing.policy': 'full'}]\ndef space(trial):\n    return {'training.lrr': "
            "trial.suggest_float('lr', 0.1, 1)}"
        )
    assert opened().optuna.trials == []  # the study can be begun with a better space


def test_a_space_whose_settings_are_refused_by_the_check_of_the_detector_is_refused(opened, monkeypatch):
    def without_weights(self, config):
        raise WeightsError("no such file: w.pth")

    monkeypatch.setattr(Settings, "beginning", without_weights)
    with pytest.raises(ConfigError, match=r"none of 50 was; the last: no such file: w\.pth"):
        opened("BASELINES = []\ndef space(trial):\n    return {'detector.weights_backbone': 'w.pth'}")


def test_invalid_draws_of_a_space_that_also_has_valid_ones_are_failed_and_passed_over(opened):
    study = opened(
        "BASELINES = [{'freezing.policy': 'full'}]\n"
        "def space(trial):\n    return {'freezing.policy': 'step', 'freezing.rho': trial.suggest_int('rho', "
        "-3, 3)}"
    )
    assert {asked.setting.rho for asked in train(study)} == {None, 2, 3}
    failed = [trial for trial in study.optuna.trials if trial.state == TrialState.FAIL]
    assert failed
    assert all("rho" in trial.user_attrs["failure"] for trial in failed)
    assert study.exhausted
    assert study.choosing.invalid_draws > len(failed)  # those looked through in the end, too
    assert "rho" in study.choosing.last_invalid


def test_a_broken_study_file_is_a_clear_error(tmp_path):
    (tmp_path / "study.db").write_text("no database at all, " * 100)
    with pytest.raises(ConfigError, match="cannot open the study 'x'"):
        open_study(tmp_path / "study.db", "x", trials=8, seed=0)


def test_rows_hold_what_reports_need(opened):
    study = opened()
    train(study, 3)
    row = study.rows(Path("studies/test/trials"))[2]
    assert {
        "number",
        "state",
        "policy",
        "parameters",
        "rho",
        "map50",
        "compute_ratio",
        "map50_best",
        "seed",
        "run",
    } <= set(row)
    assert (row["number"], row["state"], row["policy"], row["run"]) == (
        2,
        "COMPLETE",
        "step",
        "studies/test/trials/2",
    )
    assert row["parameters"]["rho"] == row["rho"]
