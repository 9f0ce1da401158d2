"""The exam that every policy sits; its rows are in policy_members.py, the second implementations in
second_policies.py.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies import (
    POLICIES,
    Decision,
    Horizon,
    Policy,
    Signals,
    State,
    make_policy,
    policy_from_dict,
    policy_to_dict,
)
from tests.freezing import second_policies
from tests.freezing.policy_members import MEMBERS, Member, costs_of

NAMES = [member.name for member in MEMBERS]
every_member = pytest.mark.parametrize("member", MEMBERS, ids=NAMES)


def walk(
    member: Member, policy: Policy, horizon: Horizon, trace: list[Any] | None, *, through_json: bool = False
) -> list[Decision]:
    """A whole run epoch by epoch, with what the policy would see of ``trace``; optionally as if it were
    resumed before each epoch.
    """
    state: State = {}
    decisions: list[Decision] = []
    for epoch in range(horizon.epochs):
        signals = dict.fromkeys(policy.needs_signals)
        if decisions and trace is not None:
            signals = dict.fromkeys(
                signals, member.observed(trace[epoch - 1], decisions[-1].num_frozen, horizon.num_stages)
            )
        before = json.dumps(state)
        resumed = policy_from_dict(json.loads(json.dumps(policy_to_dict(policy)))) if through_json else policy
        handed = json.loads(before)
        decision, state = resumed.decide(epoch, horizon, signals, handed if through_json else state)
        assert json.dumps(handed) == before, "a state is never changed in place"
        decisions.append(decision)
    return decisions


def prefixes(decisions: list[Decision]) -> list[int]:
    return [decision.num_frozen for decision in decisions]


def draw_run(
    data: st.DataObject, member: Member, most: int
) -> tuple[Policy, Horizon, list[Any] | None, dict[str, Any]]:
    epochs, stages, seed = (
        data.draw(st.integers(1, most)),
        data.draw(st.integers(1, 6)),
        data.draw(st.integers(0, 2**31 - 1)),
    )
    parameters = data.draw(member.parameters)
    trace = (
        None
        if member.trace is None
        else data.draw(st.lists(member.trace(stages), min_size=epochs, max_size=epochs))
    )
    return (
        make_policy(member.name, **parameters),
        Horizon(epochs, stages, seed, costs=tuple(costs_of(stages))),
        trace,
        parameters,
    )


def test_every_policy_sits_the_exam() -> None:
    assert list(POLICIES) == NAMES


@every_member
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_decisions_equal_the_second_implementation(member: Member, data: st.DataObject) -> None:
    policy, horizon, trace, parameters = draw_run(data, member, 60)
    timeline = prefixes(walk(member, policy, horizon, trace))
    assert timeline == member.second(
        horizon.epochs, horizon.num_stages, horizon.seed if trace is None else trace, **parameters
    )
    assert len(timeline) == horizon.epochs
    assert all(type(n) is int and 0 <= n <= horizon.num_stages for n in timeline)
    if trace is None:
        assert timeline == policy.decisions(
            horizon.epochs, horizon.num_stages, horizon.seed, costs=horizon.costs
        )


@every_member
def test_decisions_equal_those_written_by_hand(member: Member) -> None:
    assert member.examples
    for parameters, epochs, stages, timeline, *trace in member.examples:
        horizon = Horizon(epochs, stages, costs=tuple(costs_of(stages)))
        assert (
            prefixes(
                walk(member, make_policy(member.name, **parameters), horizon, trace[0] if trace else None)
            )
            == timeline
        )


@every_member
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_resumed_anywhere_through_json_the_decisions_are_the_same(
    member: Member, data: st.DataObject
) -> None:
    policy, horizon, trace, _ = draw_run(data, member, 20)
    assert walk(member, policy, horizon, trace, through_json=True) == walk(member, policy, horizon, trace)


@pytest.mark.parametrize("member", [m for m in MEMBERS if m.trace is None], ids=lambda member: member.name)
@given(data=st.data())
def test_replayed_up_to_any_block_it_remembers_and_has_decided_the_same(
    member: Member, data: st.DataObject
) -> None:
    policy, horizon, _, _ = draw_run(data, member, 20)
    state: State = {}
    decided: list[Decision] = []
    for block in range(horizon.epochs):
        assert policy.replay(horizon, block) == (decided, state)
        decision, state = policy.decide(block, horizon, {}, state)
        decided.append(decision)


@every_member
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_learning_rate_factors(member: Member, data: st.DataObject) -> None:
    policy, horizon, trace, parameters = draw_run(data, member, 8)
    for decision in walk(member, policy, horizon, trace):
        if member.lr_factors is None:
            assert decision.lr_factors is None
        else:
            assert decision.lr_factors is not None
            assert list(decision.lr_factors) == pytest.approx(
                member.lr_factors(horizon.num_stages, **parameters), rel=1e-12
            )


@every_member
@given(data=st.data())
def test_json_round_trip(member: Member, data: st.DataObject) -> None:
    policy = make_policy(member.name, **data.draw(member.parameters))
    again = policy_from_dict(json.loads(json.dumps(policy_to_dict(policy))))
    assert again == policy
    assert again.parameters() == policy.parameters()
    assert make_policy(policy.name, **policy.parameters()) == policy


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [(m.name, parameters, words) for m in MEMBERS for parameters, words in m.refused],
    ids=str,
)
def test_parameters_out_of_range_are_refused_with_rule_and_value(
    name: str, parameters: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        make_policy(name, **parameters)
    message = str(error.value)
    assert name in message
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


@every_member
@pytest.mark.parametrize(("epochs", "num_stages"), [(0, 4), (-1, 4), (3, 0), (2.0, 4), (3, True)])
def test_impossible_runs_are_refused(member: Member, epochs: Any, num_stages: Any) -> None:
    parameters = member.examples[0][0]
    with pytest.raises(ConfigError, match=r"(epochs|num_stages) must be an integer >= 1, got"):
        make_policy(member.name, **parameters).check(Horizon(epochs, num_stages))
    if member.trace is None:
        with pytest.raises(ConfigError, match=r"(epochs|num_stages) must be an integer >= 1, got"):
            make_policy(member.name, **parameters).decisions(epochs, num_stages)


def test_an_epoch_outside_of_the_run_is_refused() -> None:
    for epoch in (-1, 5):
        with pytest.raises(ConfigError, match=rf"t must be an integer in 0\.\.4, got {epoch}"):
            make_policy("full").decide(epoch, Horizon(5, 4), {}, {})


def test_unknown_policies_and_parameters_are_named_with_what_is_known() -> None:
    with pytest.raises(
        ConfigError,
        match=r"unknown freezing policy 'stepp'; known: full, frozen, step, .*budget, or a dotted path .*; "
        r"did you mean step\?",
    ):
        make_policy("stepp", rho=3)
    with pytest.raises(
        ConfigError, match=r"policy full does not know rho=3; it is full, which takes no parameters"
    ):
        make_policy("full", rho=3)
    for broken in (
        {"name": "full"},
        {"name": "full", "parameters": 3},
        {"name": "full", "parameters": {}, "more": 1},
        ["full"],
    ):
        with pytest.raises(ConfigError, match="mapping of name and parameters"):
            policy_from_dict(broken)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown freezing policy None"):
        policy_from_dict({"name": None, "parameters": {}})


def test_a_policy_that_needs_signals_has_no_timeline_before_training() -> None:
    class Listening(Policy):
        name = "listening"

        @property
        def needs_signals(self) -> tuple[str, ...]:
            return ("gradient_norm",)

        def decide(self, t: int, horizon: Horizon, signals: Signals, state: State) -> tuple[Decision, State]:
            return Decision(0 if signals["gradient_norm"] > 1 else 1), state

    with pytest.raises(ConfigError, match="gradient_norm measured while training"):
        Listening().decisions(3, 2)
    assert Listening().parameters() == {}


def test_policies_need_no_torch() -> None:
    code = (
        "import sys, dbf_ray.freezing, dbf_ray.freezing.policies as p; p.make_policy('step', "
        "rho=2).decisions(4, 4); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


@settings(max_examples=100, deadline=None)
@given(epochs=st.integers(1, 40), seed=st.integers(0, 99), data=st.data())
def test_a_random_budget_is_spent_exactly(epochs: int, seed: int, data: st.DataObject) -> None:
    budget = data.draw(st.integers(0, epochs))
    timeline = make_policy("random_budget", budget=budget).decisions(epochs, 4, seed)
    assert timeline.count(0) == budget
    assert timeline == second_policies.random_budget(epochs, 4, seed, budget)
    with pytest.raises(ConfigError, match=rf"budget must be at most .* {epochs}, got {epochs + 1}"):
        make_policy("random_budget", budget=epochs + 1).decisions(epochs, 4, seed)


def test_a_draw_of_its_own_is_the_same_with_all_seeds_and_each_is_another() -> None:
    drawn = [
        [make_policy("random_budget", budget=5, draw=draw).decisions(12, 4, seed) for seed in (0, 7)]
        for draw in (0, 1, 2)
    ]
    assert all(one == two for one, two in drawn)
    assert len({tuple(one) for one, _ in drawn}) == 3
    by_seed = make_policy("random_budget", budget=5).decisions(12, 4, 0)
    assert [epoch for epoch, prefix in enumerate(by_seed) if prefix == 0] == [1, 3, 5, 10, 11]  # as ever


def test_chance_is_even() -> None:
    """Over many seeds every epoch is drawn as often, and different seeds draw differently."""
    drawn = [make_policy("random_budget", budget=3).decisions(10, 4, seed) for seed in range(2000)]
    for epoch in range(10):
        assert abs(sum(timeline[epoch] == 0 for timeline in drawn) - 600) < 5 * math.sqrt(2000 * 0.3 * 0.7)
    tossed = sum(make_policy("bernoulli", p=0.3).decisions(10, 4, seed).count(0) for seed in range(2000))
    assert abs(tossed - 6000) < 5 * math.sqrt(20000 * 0.3 * 0.7)
    assert len({tuple(timeline) for timeline in drawn}) == 120  # all sets of three of ten


@settings(max_examples=100, deadline=None)
@given(data=st.data(), epochs=st.integers(1, 20), block=st.integers(1, 9), limit=st.floats(0.5, 1))
def test_a_budget_is_never_broken_also_with_a_short_last_block(
    data: st.DataObject, epochs: int, block: int, limit: float
) -> None:
    total = data.draw(st.integers(block * (epochs - 1) + 1, block * epochs))
    horizon = Horizon(epochs, 2, costs=(10, 8, 5), block_steps=block, total_steps=total)
    policy = make_policy("budget", limit=limit, inner={"name": "full"})
    timeline = prefixes(policy.timeline(horizon))
    steps = [horizon.steps(e) for e in range(epochs)]
    assert sum(steps) == total
    spent = sum((10 if n == 0 else 5) * s for n, s in zip(timeline, steps, strict=True))
    assert spent <= limit * 10 * total * (1 + 1e-9)
    if 2 in timeline:  # another unfrozen block would have broken it
        first = timeline.index(2)
        assert spent + 5 * steps[first] > limit * 10 * total or 0 in timeline[first:]


def test_a_budget_below_the_frozen_cost_or_without_costs_is_refused() -> None:
    policy = make_policy("budget", limit=0.4, inner={"name": "full"})
    with pytest.raises(
        ConfigError,
        match=r"limit must be >= 0\.5, the compute_ratio of a backbone that is never trained, got 0\.4",
    ):
        policy.decisions(4, 2, costs=(10, 8, 5))
    with pytest.raises(ConfigError, match="costs of each frozen prefix must be known"):
        policy.decisions(4, 2)
    with pytest.raises(ConfigError, match=r"budget must be at most .* 4, got 5"):
        make_policy("budget", limit=0.9, inner={"name": "random_budget", "budget": 5}).decisions(
            4, 2, costs=(10, 8, 5)
        )


def test_a_budget_over_an_adaptive_policy_hears_its_signals() -> None:
    policy = make_policy("budget", limit=0.8, inner={"name": "aimd", "threshold": 0.5, "max_rho": 9})
    assert policy.needs_signals == ("effective_perturbation",)
    state: State = {}
    timeline = []
    for epoch in range(6):
        seen = 0.9 if timeline and timeline[-1] == 0 else None
        decision, state = policy.decide(
            epoch,
            Horizon(6, 2, costs=(10, 8, 5)),
            {"effective_perturbation": seen},
            json.loads(json.dumps(state)),
        )
        timeline.append(decision.num_frozen)
    # it would train on; .8 x 60 pays for three unfrozen epochs of 10 and three frozen ones of 5
    assert timeline == [
        0,
        0,
        0,
        2,
        2,
        2,
    ]


def heard(
    policy: Policy, horizon: Horizon, norms: list[list[float]], granted: dict[int, int] | None = None
) -> list[int]:
    """A gradnorm timeline for norms of each epoch; ``granted`` says which epochs were frozen whatever the
    policy wanted.
    """
    state: State = {}
    timeline: list[int] = []
    for epoch in range(horizon.epochs):
        frozen = max(timeline[-1], horizon.always_frozen) if timeline else 0
        seen = (
            None
            if not timeline or frozen == horizon.num_stages
            else [None] * frozen + norms[epoch - 1][frozen:]
        )
        decision, state = policy.decide(epoch, horizon, {"gradient_norms": seen}, state)
        timeline.append((granted or {}).get(epoch, decision.num_frozen))
    return timeline


def test_stages_that_are_always_frozen_are_no_frozen_stages_to_probe_for() -> None:
    """Percentile 0 never freezes: windows of three stay windows of three, whatever is always frozen."""
    policy, norms = (
        make_policy("gradnorm", percentile=0, window=3, recheck=2),
        [[1.0, 1.0 + e, 2.0, 3.0] for e in range(12)],
    )
    assert heard(policy, Horizon(12, 4, always_frozen=1), norms) == [0] * 12
    state: State = {}
    for epoch in range(12):
        seen = None if epoch == 0 else [None, *norms[epoch - 1][1:]]
        _, state = policy.decide(epoch, Horizon(12, 4, always_frozen=1), {"gradient_norms": seen}, state)
        assert not state["probing"]
        assert state["count"] == epoch % 3


def test_a_probe_that_was_not_granted_is_none() -> None:
    """Frozen from epoch 2 on; the probe due in epoch 4 is refused by somebody else, so its end is not taken
    for a comparison of all stages.
    """
    policy = make_policy("gradnorm", percentile=60, window=1, recheck=3)
    norms = [[1.0, 1.0, 1.0]] * 1 + [[1.0, 2.0, 3.0]] * 9
    free = heard(policy, Horizon(6, 3), norms)
    assert free[:4] == [0, 0, 2, 2]
    assert free[4] == 0
    refused = heard(policy, Horizon(6, 3), norms, granted={4: 3})
    assert refused[5] == 2


def test_the_policies_page_describes_every_policy() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
    missing = [name for name in POLICIES if f"`{name}" not in page]
    assert missing == []


CLOSED_FORMS: dict[str, Any] = {  # the budgets of docs/policies.md
    "full": lambda e, k: e,
    "frozen": lambda e, k: 0,
    "step": lambda e, k, rho, phase=0: math.ceil((e - phase) / rho) if phase < e else 0,
    "epochs": lambda e, k, **given: sum(epoch < e for epoch in given["epochs"]),
    "random_budget": lambda e, k, budget, draw=None: budget,
    "front": lambda e, k, budget: min(budget, e),
    "back": lambda e, k, budget: min(budget, e),
    "lr_scale": lambda e, k, factor: e,
    "layer_decay": lambda e, k, xi: e,
    "warmup_step": lambda e, k, warmup, rho: math.ceil((e - warmup) / rho) if warmup < e else 0,
    "gradual_unfreeze": lambda e, k, every: e,
}


@pytest.mark.parametrize(
    "member", [member for member in MEMBERS if member.name in CLOSED_FORMS], ids=lambda member: member.name
)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_budgets_have_their_closed_forms(member: Member, data: st.DataObject) -> None:
    policy, horizon, _, parameters = draw_run(data, member, 40)
    trained = sum(n < horizon.num_stages for n in prefixes(policy.timeline(horizon)))
    assert trained == CLOSED_FORMS[member.name](horizon.epochs, horizon.num_stages, **parameters)


@settings(max_examples=60, deadline=None)
@given(
    epochs=st.integers(1, 40),
    stages=st.integers(1, 6),
    t0=st.integers(0, 8),
    start=st.integers(0, 8),
    end=st.integers(0, 8),
)
def test_budgets_of_gradual_freezing_and_of_the_cosine(
    epochs: int, stages: int, t0: int, start: int, end: int
) -> None:
    timeline = make_policy("gradual_freeze", t0=t0 / 8).decisions(epochs, stages)
    last = t0 / 8 + (1 - t0 / 8) * (stages - 1) / stages
    assert sum(n < stages for n in timeline) == min(
        epochs, sum(epoch / epochs <= last + 1e-9 for epoch in range(epochs))
    )
    # a cosine from end to end is symmetric: its mean is the ends'
    total = epochs * (start + end) / 16 if epochs > 1 else start / 8
    assert make_policy("cosine", start=start / 8, end=end / 8).decisions(epochs, stages).count(
        0
    ) == math.floor(0.5 + total + 1e-9)
