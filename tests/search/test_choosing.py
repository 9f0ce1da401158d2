"""A study that chooses from its pool: with each sampler, within budgets, with what another study knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.config import Config, with_overrides
from dbf_ray.errors import ConfigError
from dbf_ray.search.budget import Budget
from dbf_ray.search.ceiling import ceiling
from dbf_ray.search.cost import Costs
from dbf_ray.search.known import Known
from dbf_ray.search.settings import Settings
from dbf_ray.search.spaces import load_space
from dbf_ray.search.study import Trial, rehearse
from dbf_ray.search.wanted import check_budget, trials_by_default
from tests.search import fake_search
from tests.search.begins import four_stages
from tests.search.fake_search import FakeSearch, summary_of
from tests.search.test_sharing import Trained, owners

RHO, POLICIES, LR = "rho", "policies", "lr.py"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("files", "search.store", "training.checkpoint", "training.manifest"):
        monkeypatch.setattr(f"dbf_ray.{module}.flush", lambda _: None)


def fake(folder: Path, space: str, epochs: int, **more: Any) -> tuple[FakeSearch, Trained]:
    trained = Trained()
    return FakeSearch(folder, load_space(space).file, epochs, trained, **more), trained


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(("epochs", "whole"), [(12, 90), (20, 230)])
def test_a_grid_trains_all_of_rho_and_no_epoch_twice(
    epochs: int, whole: int, workers: int, tmp_path: Path
) -> None:
    search, trained = fake(tmp_path / "s", RHO, epochs, sampler=None)  # the space's own
    search.run(workers)
    assert search.study.choosing.sampler.name == "grid"
    assert (len(search.values()), trained.total(), set(trained.values())) == (epochs + 1, whole, {1})
    assert search.largest <= 6
    assert search.study.exhausted


@pytest.mark.parametrize("sampler", ["cost", "random"])
def test_what_is_chosen_from_the_pool_is_trained_once_also_after_a_restart(
    sampler: str, tmp_path: Path
) -> None:
    search, trained = fake(tmp_path / "s", RHO, 8, sampler=sampler)
    search.run(2, most_trials=5)
    search.study.ask()  # and its process is killed
    again = FakeSearch(tmp_path / "s", load_space(RHO).file, 8, trained, sampler=sampler)
    again.run(2)
    assert len(again.values()) == 9
    assert set(owners(trained).values()) == {1}
    rows = again.study.optuna.trials
    assert len(rows) == 9  # nothing was drawn in vain
    assert sum("rho" in row.params for row in rows) == 7


def test_the_cost_is_the_default_where_it_is_known_and_chooses_alike_after_a_restart(tmp_path: Path) -> None:
    whole, _ = fake(tmp_path / "whole", POLICIES, 6, sampler=None)
    assert whole.study.choosing.sampler.name == "cost"
    whole.run(1, most_trials=7)
    search, trained = fake(tmp_path / "s", POLICIES, 6, sampler=None)
    search.run(1, most_trials=4)
    FakeSearch(tmp_path / "s", load_space(POLICIES).file, 6, trained, sampler=None).run(1, most_trials=3)
    again, _ = fake(tmp_path / "s", POLICIES, 6, sampler=None)
    assert again.values() == whole.values()


def test_a_wider_range_of_integers_goes_on_with_a_new_pool_and_the_states_it_has(tmp_path: Path) -> None:
    file = tmp_path / "space.py"
    text = (
        "BASELINES = [{{'freezing.policy': 'full'}}]\nSAMPLER = 'grid'\ndef space(trial):\n    return "
        "{{'freezing.policy': 'step', 'freezing.rho': trial.suggest_int('rho', 5, {})}}"
    )
    file.write_text(text.format(8))
    trained = Trained()
    FakeSearch(tmp_path / "s", file, 8, trained, sampler=None).run(most_trials=3)
    file.write_text(text.format(9))
    wider = FakeSearch(tmp_path / "s", file, 8, trained, sampler=None)
    wider.run()
    assert len(wider.values()) == 5  # full, 5 to 8: nine epochs are none
    assert set(owners(trained).values()) == {1}
    file.write_text(text.format(7))
    with pytest.raises(ConfigError, match=r"drawn 'rho' from integers from 5 to 9, and now it is integers"):
        FakeSearch(tmp_path / "s", file, 8, trained, sampler=None)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_search_stops_at_its_epochs_and_goes_on_with_more(workers: int, tmp_path: Path) -> None:
    search, trained = fake(tmp_path / "s", RHO, 12, sampler=None, most_epochs=50)
    search.run(workers)
    assert 50 - 12 < trained.total() <= 50
    assert search.study.budget.stopped
    assert not search.study.exhausted
    assert search.study.budget.trained == trained.total()
    assert search.study.budget.stopped_text().startswith("stopped at its budget of 50 epochs, 4")
    assert search.values()  # all that began are complete
    more = FakeSearch(tmp_path / "s", load_space(RHO).file, 12, trained, sampler=None, most_epochs=90)
    more.run(workers)
    assert (len(more.values()), trained.total()) == (13, 90)


def test_hours_are_counted_by_how_long_an_epoch_takes() -> None:
    now = [0.0]
    budget = Budget(hours=1.0, clock=lambda: now[0])
    assert budget.fits(10**6)  # not known yet
    budget.begin(0, 10)
    for _ in range(10):
        now[0] += 120
        budget.epoch(0)
    budget.end(0)
    assert budget.fits(20)
    assert not budget.fits(21)
    assert budget.seconds == 1200
    later = Budget(hours=1.0, seconds=1200, seconds_an_epoch=120, clock=lambda: 0.0)
    assert (later.fits(20), later.fits(21)) == (True, False)
    assert budget.text() == "1 hours"


def test_epochs_of_running_trials_count_and_those_that_a_failed_one_left_are_free() -> None:
    budget = Budget(20, trained=3)
    budget.begin(0, 10)
    assert (budget.fits(7), budget.fits(8)) == (True, False)
    budget.epoch(0)
    budget.end(0)
    assert (budget.trained, budget.fits(16), budget.fits(17)) == (4, True, False)


def settings_of(**search: Any) -> tuple[Config, Settings]:
    changes = {f"search.{key}": value for key, value in search.items()}
    config = with_overrides(Config(), {"training.epochs": 12, **changes})
    return config, Settings(config, four_stages)


def test_a_budget_that_does_not_hold_the_baselines_is_refused_and_the_one_it_names_works() -> None:
    (config, settings), space = settings_of(epochs=23), load_space(RHO)
    first = [settings.make(baseline) for baseline in space.baselines]
    with pytest.raises(ConfigError, match=r"search\.epochs must be at least 24, .* got 23; give --epochs 24"):
        check_budget(config, space, first)
    check_budget(settings_of(epochs=24)[0], space, first)


def test_how_many_trials_where_nobody_said() -> None:
    rho, policies = load_space(RHO), load_space(POLICIES)
    assert trials_by_default(settings_of()[0], rho, 13) == 13
    assert trials_by_default(settings_of(sampler="cost")[0], rho, 13) == 20
    assert trials_by_default(settings_of()[0], policies, 300) == 20
    assert trials_by_default(settings_of(epochs=99)[0], policies, 300) == 300


def test_a_ceiling_leaves_out_what_costs_more_but_no_baseline(tmp_path: Path) -> None:
    search, _ = fake(tmp_path / "s", RHO, 12, sampler=None, max_compute_ratio=0.5)
    search.run()
    ratio = search.study.choosing._cost
    made = [search.study.settings.make(row["overrides"]) for row in search.study.rows(search.trials)]
    assert [one.policy for one in made[:2]] == ["full", "frozen"]
    assert {one.rho for one in made[2:]} == {4, 5, 6, 7, 8, 9, 10, 11, 12}
    assert all((ratio(one) or 9) <= 0.5 for one in made[1:])
    assert search.study.choosing.invalid_draws == 0


def test_a_ceiling_below_all_is_refused_and_the_one_it_names_works() -> None:
    config, settings = settings_of(max_compute_ratio=0.3)
    with pytest.raises(ConfigError, match=r"no setting of the space is left: .* got 0\.3; give") as refused:
        rehearse(load_space(RHO), settings, leave_out=ceiling(config, Costs(settings)))
    named = float(str(refused.value).rsplit("--max-compute-ratio ")[1].split()[0])
    assert 0.35 < named < 0.4
    config, settings = settings_of(max_compute_ratio=named)
    rehearse(load_space(RHO), settings, leave_out=ceiling(config, Costs(settings)))
    with pytest.raises(ConfigError, match=r"known before training, which that of policy .* is not; leave it"):
        rehearse(load_space("adaptive"), settings, leave_out=ceiling(config, Costs(settings)))


def test_a_space_that_a_sampler_cannot_serve_is_refused_before_there_is_a_file() -> None:
    _, settings = settings_of()
    with pytest.raises(ConfigError, match=r"adaptive\.py: the sampler cost .* give --search\.sampler tpe"):
        rehearse(load_space("adaptive"), settings, sampler="cost")
    with pytest.raises(ConfigError, match=r"adaptive\.py: the sampler grid trains all settings"):
        rehearse(load_space("adaptive"), settings, sampler="grid")
    rehearse(load_space("adaptive"), settings, sampler=None)


def test_a_constraint_on_what_is_not_drawn_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "space.py"
    file.write_text(
        "BASELINES = []\nCONSTRAINTS = {'phase < rho': lambda fase, rho: fase < rho}\ndef space(trial):\n"
        "    return {'freezing.policy': 'step', 'freezing.rho': trial.suggest_int('rho', 2, 4)}"
    )
    with pytest.raises(ConfigError, match="'phase < rho' has 'fase', and what is drawn are rho"):
        rehearse(load_space(file), settings_of()[1])


def test_what_an_earlier_study_knows_is_trained_by_nobody_again(tmp_path: Path) -> None:
    first, trained = fake(tmp_path / "first", RHO, 8, sampler=None)
    first.run(most_trials=6)
    before = trained.total()
    assert first.store.names()
    options: dict[str, Any] = {"known": tmp_path / "first", "sampler": None}
    more = FakeSearch(tmp_path / "more", load_space(RHO).file, 8, trained, **options)
    assert more.store.names() == first.store.names()
    assert more.study.baselines_done()
    assert len(more.study.complete()) == 6
    more.run(2)
    assert set(owners(trained).values()) == {1}
    rows = more.study.rows(more.trials)
    assert more.values().items() > first.values().items()
    assert [row.get("known") for row in rows[:6]] == [
        {"study": str(tmp_path / "first"), "trial": number} for number in range(6)
    ]
    assert [row["epochs_trained"] for row in rows[:6]] == [0] * 6
    assert trained.total() - before == more.study.budget.trained
    summaries = [tmp_path / study / "trials" / "3" / "summary.json" for study in ("first", "more")]
    assert os.path.samefile(*summaries)
    again = FakeSearch(tmp_path / "more", load_space(RHO).file, 8, trained, **options)
    assert len(again.values()) == len(rows) == 9


def test_a_known_study_of_another_base_is_refused_with_what_differs(tmp_path: Path) -> None:
    first, _ = fake(tmp_path / "first", RHO, 8, sampler=None)
    first.run(most_trials=2)
    with pytest.raises(ConfigError, match=r"search\.known .* differs in training\.epochs \(8, now 6\); give"):
        fake(tmp_path / "more", RHO, 6, known=tmp_path / "first")
    with pytest.raises(ConfigError, match=r"search\.known must be the folder of a study, .* got .*nowhere"):
        fake(tmp_path / "more", RHO, 8, known=tmp_path / "nowhere")
    assert not (tmp_path / "more").exists()
    with pytest.raises(ConfigError, match=r"search\.known must be another study's folder"):
        Known(tmp_path / "first", tmp_path / "first", Config())


def test_a_known_study_that_other_code_has_trained_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(asked: Trial, epochs: int) -> dict[str, Any]:
        return {**summary_of(asked, epochs), "versions": {"torch": "1.0", "dbf-ray": "0.1"}}

    monkeypatch.setattr(fake_search, "summary_of", older)
    first, _ = fake(tmp_path / "first", RHO, 8, sampler=None)
    first.run(most_trials=1)
    with pytest.raises(ConfigError, match=r"trial 0 of .*first was by \{.*'torch': '1\.0'.*\}, now \{"):
        fake(tmp_path / "more", RHO, 8, known=tmp_path / "first")
