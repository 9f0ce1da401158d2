"""Names of states: equal exactly as far as two trainings are the same, by a second implementation that looks
at every optimizer step; and how many epochs a search trains by them.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.config import Config, with_overrides
from dbf_ray.freezing import Horizon, make_policy
from dbf_ray.search.settings import Beginning, Setting, Settings
from dbf_ray.search.spaces import load_space
from dbf_ray.search.states import common, deepest, leaves, wanted
from tests.freezing.policy_members import MEMBERS, costs_of
from tests.search.begins import four_stages
from tests.search.counting import train_all

EPOCHS, STEPS, STAGES = 8, 4, 3
RHO = Path(__file__).parents[2] / "search_spaces" / "rho.py"


def begin(config: Config) -> Beginning:
    """Eight epochs of four steps; blocks of as many steps as ``freezing.interval`` says, or epochs."""
    interval = config.freezing.interval
    length = interval.every * (1 if interval.unit == "steps" else STEPS)
    steps = STEPS * config.training.epochs
    blocks = -(-steps // length)
    costs = tuple(costs_of(STAGES))
    return Beginning(
        Horizon(blocks, STAGES, config.seed, costs=costs, block_steps=length, total_steps=steps),
        {"data": "a"},
    )


SETTINGS = Settings(with_overrides(Config(), {"training.epochs": EPOCHS}), begin)


def make(**overrides: Any) -> Setting:
    return SETTINGS.make({name.replace("__", "."): value for name, value in overrides.items()})


def step(rho: int, **more: Any) -> Setting:
    return make(freezing__policy="step", freezing__rho=rho, **more)


def witness(setting: Setting, epoch: int) -> list[Any]:
    """All that has shaped a training in its first epochs, step by step, written out."""
    freezing, horizon = setting.config.freezing, begin(setting.config).horizon
    policy = make_policy(freezing.policy, **freezing.parameters)
    rows: list[Any] = [horizon.block_steps, horizon.seed]
    thawed = frozen = False
    before: int | None = None
    timeline = policy.timeline(horizon)
    for of_run in range(epoch * STEPS):
        decision = timeline[of_run // horizon.block_steps]
        thawed |= before is not None and decision.num_frozen < before
        frozen |= decision.num_frozen > 0
        before = decision.num_frozen
        rows.append((decision.num_frozen, *(decision.lr_factors or [1.0] * STAGES)))
    rows.append((freezing.momentum, freezing.rewarm_steps, freezing.rewarm_after) if thawed else None)
    engine = (freezing.engine, freezing.engine_precision, freezing.engine_compile)
    rows.append((*engine, freezing.cache, freezing.cache_dtype) if frozen else None)
    return rows


@st.composite
def settings(draw: st.DrawFn) -> Setting:
    """Any policy that needs no signals, thaw and engine settings, blocks of steps or epochs."""
    member = draw(st.sampled_from([member for member in MEMBERS if member.trace is None]))
    parameters = draw(member.parameters)
    overrides: dict[str, Any] = {f"freezing.{name}": value for name, value in parameters.items()}
    overrides |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "freezing.momentum": st.just("reset"),
                "freezing.rewarm_steps": st.sampled_from([0, 2]),
                "freezing.engine": st.booleans(),
                "freezing.cache": st.sampled_from(["off", "ram"]),
                "freezing.interval": st.sampled_from(
                    [{"unit": "steps", "every": every} for every in (3, 4)]
                    + [{"unit": "epochs", "every": every} for every in (1, 2)]
                ),
                "seed": st.integers(0, 1),
            },
        )
    )
    return SETTINGS.make({"freezing.policy": member.name, **overrides})


@given(one=settings(), two=settings())
def test_names_are_equal_exactly_as_far_as_everything_that_shaped_them_is(one: Setting, two: Setting) -> None:
    assert len(one.states) == len(two.states) == EPOCHS + 1
    same = [a == b for a, b in zip(one.states, two.states, strict=True)]
    assert same == [witness(one, epoch) == witness(two, epoch) for epoch in range(EPOCHS + 1)]
    assert common(one.states, two.states) == max(0, sum(same) - 1)
    if same[-1]:
        assert one.key == two.key
    assert len({*one.states, *two.states}) == 2 * (EPOCHS + 1) - sum(same)


def test_four_steps_are_an_epoch() -> None:
    assert step(3, freezing__interval={"unit": "steps", "every": 4}).states == step(3).states


def test_what_is_not_known_before_training_shares_with_nothing_but_itself() -> None:
    adaptive = {"freezing__policy": "aimd", "freezing__threshold": 0.5, "freezing__max_rho": 4}
    one, two = make(**adaptive), make(**{**adaptive, "freezing__max_rho": 5})
    assert one.states == make(**adaptive, name="other").states
    assert common(one.states, two.states) == common(one.states, step(2).states) == 0
    assert not {*one.states} & {*two.states}
    assert len({*one.states}) == EPOCHS + 1


def test_data_weights_and_versions_are_in_every_name() -> None:
    other = Settings(SETTINGS.config, lambda config: Beginning(begin(config).horizon, {"data": "b"}))
    assert not {*other.make({}).states} & {*make().states}


def test_where_others_leave_and_what_is_deepest() -> None:
    way, early, late = step(8).states, step(2).states, step(5).states
    assert (common(way, early), common(way, late), common(early, late)) == (2, 5, 2)
    assert leaves(way, [early, late, way, make(freezing__policy="frozen").states]) == {2, 5}
    assert deepest(late, {way[2], way[5], way[6]}) == 5
    assert deepest(make(freezing__policy="frozen").states, {way[2]}) == 0


def test_what_saves_most_is_wanted_first() -> None:
    way, open_ = step(8).states, [step(rho).states for rho in (2, 5, 6, 7)]
    have = [way[epoch] for epoch in (1, 2, 4, 5, 7)]
    # 5 serves rho 5 to 7; then 7 two epochs more to rho 7, and 2 two to rho 2; 1 and 4 serve nobody better
    assert wanted(open_, have, 9) == [way[5], way[2], way[7]]
    assert wanted(open_, have, 1) == [way[5]]
    assert wanted([], have, 9) == wanted(open_, have, 0) == []


def exhaustive(epochs: int) -> list[tuple[str, ...]]:
    """All of the space rho with its baselines."""
    space = load_space(RHO)
    made = Settings(with_overrides(Config(), {"training.epochs": epochs}), four_stages)
    periods = range(2, min(20, epochs) + 1)
    drawn = [{"freezing.policy": "step", "freezing.rho": rho} for rho in periods]
    return [made.make(overrides).states for overrides in (*space.baselines, *drawn)]


@pytest.mark.parametrize(("epochs", "alone", "shared"), [(12, 156, 90), (20, 420, 230)])
def test_an_exhaustive_search_of_rho_trains_each_beginning_once(epochs: int, alone: int, shared: int) -> None:
    every = exhaustive(epochs)
    assert len(every) * epochs == alone
    assert len({state for names in every for state in names[1:]}) == shared
    for seed, workers in itertools.product(range(6), (1, 2, 3, 4)):
        order = random.Random(seed).sample(every, len(every))
        trained, largest = train_all(order, workers, most=20)
        assert set(trained.values()) == {1}
        assert trained.total() == shared
        assert largest <= 20
    assert train_all(every, 2, most=0)[0].total() == alone


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_with_room_for_sixteen_states_hardly_any_epoch_comes_twice(workers: int) -> None:
    for seed in range(6):
        order = random.Random(seed).sample(exhaustive(20), 21)
        trained, largest = train_all(order, workers, most=16)
        assert trained.total() <= 233
        assert largest <= 16 + workers
    assert train_all(exhaustive(20), workers, most=16)[0].total() == 230  # the shorter periods first
