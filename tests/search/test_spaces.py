"""Search-space files: every one in search_spaces/ loads and draws valid settings; broken ones are refused
with their place.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import optuna
import pytest
from optuna.samplers import RandomSampler

from dbf_ray.config import Config, with_overrides
from dbf_ray.errors import ConfigError
from dbf_ray.freezing import make_policy
from dbf_ray.search.settings import Settings
from dbf_ray.search.spaces import NotAllowedError, load_space, question
from tests.search.begins import four_stages

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.py"))


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.py"
    file.write_text(text)
    return file


def new_trial(seed: int = 0) -> optuna.Trial:
    return optuna.create_study(directions=["maximize", "minimize"], sampler=RandomSampler(seed=seed)).ask()


def test_there_are_search_spaces():
    assert SPACES


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
@pytest.mark.parametrize("epochs", [1, 2, 8, 100])
def test_every_search_space_loads_and_draws_valid_settings(file, epochs):
    space = load_space(file)
    config = with_overrides(Config(), {"training.epochs": epochs})
    settings = Settings(config, four_stages)
    assert [settings.make(baseline).policy for baseline in space.baselines][:2] == ["full", "frozen"]
    made = set()
    for seed in range(40):
        trial = new_trial(seed)
        overrides = space.overrides(trial, config)
        with contextlib.suppress(NotAllowedError):
            space.check_constraints(trial.params)
            made.add(settings.make(overrides).key)
    assert made
    assert question(file).endswith("?")


def test_rho_is_drawn_up_to_the_number_of_epochs():
    space = load_space(SPACES[[file.stem for file in SPACES].index("rho")])
    config = with_overrides(Config(), {"training.epochs": 6})
    drawn = {space.overrides(new_trial(seed), config)["freezing.rho"] for seed in range(200)}
    assert drawn == {2, 3, 4, 5, 6}
    assert space.draw(new_trial())["freezing.policy"] == "step"  # without a configuration, too


def test_a_space_may_take_the_trial_alone(tmp_path):
    space = load_space(
        written(
            tmp_path,
            "BASELINES = []\ndef space(trial):\n    return {'seed': trial.suggest_int('seed', 5, 5)}",
        )
    )
    assert space.overrides(new_trial(), Config()) == {"seed": 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BASELINES = []", r"must define a function space\(trial\)"),
        ("def space(trial): return {}", "must define a list BASELINES"),
        (
            "BASELINES = []\nSAMPLER = 'gird'\ndef space(trial): return {}",
            "SAMPLER must be one of cost, grid, tpe, random, got 'gird'",
        ),
        (
            "BASELINES = []\nCONSTRAINTS = ['a < b']\ndef space(trial): return {}",
            r"CONSTRAINTS must be a mapping of words to functions .* got \['a < b'\]",
        ),
        ("BASELINES = {}\ndef space(trial): return {}", r"must define a list BASELINES .* found \{\}"),
        ("BASELINES = [3]\ndef space(trial): return {}", r"each of BASELINES must be a mapping .* got 3"),
        (
            "BASELINES = []\ndef space(): return {}",
            r"must take \(trial\) or \(trial, config\), got space\(\)",
        ),
        ("BASELINES = [\n\ndef space(trial: return", r"mine\.py, line \d: not valid Python"),
        ("\nimport no_such_module", r"mine\.py, line 2: loading the search space raised ModuleNotFoundError"),
        ("\nraise SystemExit(0)", r"mine\.py, line 2: loading the search space raised SystemExit"),
    ],
)
def test_a_file_that_is_no_search_space_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_space(written(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.py does not exist"):
        load_space(tmp_path / "none.py")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", r"mine\.py, line 3: .* ZeroDivisionError"),
        ("raise SystemExit(0)", r"mine\.py, line 3: .* SystemExit"),
        ("pass", "got None"),
        ("return {1: 2}", "got {1: 2}"),
    ],
)
def test_a_space_that_does_not_return_overrides_is_refused(tmp_path, body, message):
    space = load_space(written(tmp_path, f"BASELINES = []\ndef space(trial):\n    {body}"))
    with pytest.raises(ConfigError, match=message):
        space.overrides(new_trial(), Config())


def test_constraints_leave_draws_out_and_say_nothing_of_what_was_not_drawn(tmp_path: Path) -> None:
    space = load_space(
        written(
            tmp_path,
            "BASELINES = []\nCONSTRAINTS = {'a < b': lambda a, b: a < b, 'no seven': lambda a: 1 / (a - 7)}\n"
            "def space(trial): return {}",
        )
    )
    space.check_constraints({"a": 1, "b": 2})
    space.check_constraints({"a": 3})
    with pytest.raises(
        NotAllowedError, match=r"mine\.py: the constraint 'a < b' leaves out \{'a': 2, 'b': 2\}"
    ):
        space.check_constraints({"a": 2, "b": 2})
    with pytest.raises(ConfigError, match=r"mine\.py, line 2: the constraint 'no seven' raised ZeroDivision"):
        space.check_constraints({"a": 7})


def test_placements_have_equal_budgets() -> None:
    space = load_space("placement")
    settings = Settings(with_overrides(Config(), {"training.epochs": 12}), four_stages)
    trained: dict[int, set[str]] = {}
    for seed in range(300):
        made = settings.make(space.overrides(new_trial(seed), settings.config))
        policy = make_policy(made.policy, **made.parameters)
        trained.setdefault(policy.decisions(12, 4).count(0), set()).add(made.key)
    # small budgets are drawn alike
    assert {budget: len(keys) for budget, keys in trained.items()} == {6: 6, 4: 6, 3: 6, 2: 5, 1: 4}
