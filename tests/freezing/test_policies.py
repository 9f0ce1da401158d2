"""The exam that every policy sits: a new policy is one row in MEMBERS."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.policies import POLICIES, Decision, Policy, Progress, Signals, State, make_policy, policy_from_dict, policy_to_dict


class Member(NamedTuple):
    """What the exam needs to know about a policy.

    ``second`` is an independent implementation of the rule: (epochs, num_stages, seed, **parameters) -> list of prefixes.
    ``refused`` holds parameters out of range, and words of the rule and the value that the message must hold.
    """

    name: str
    parameters: st.SearchStrategy[dict[str, Any]]
    second: Callable[..., list[int]]
    examples: list[tuple[dict[str, Any], int, int, list[int]]]  # (parameters, E, K, timeline) written down by hand
    refused: list[tuple[dict[str, Any], list[str]]]


def full_twice(epochs: int, num_stages: int, seed: int) -> list[int]:
    return [0 for _ in range(epochs)]


def frozen_twice(epochs: int, num_stages: int, seed: int) -> list[int]:
    return [num_stages for _ in range(epochs)]


def step_twice(epochs: int, num_stages: int, seed: int, rho: int, phase: int = 0) -> list[int]:
    """Marks the trained epochs by walking from the phase, without any modulo."""
    timeline = [num_stages] * epochs
    trained = phase
    while trained < epochs:
        timeline[trained] = 0
        trained += rho
    return timeline


step_parameters = st.integers(1, 40).flatmap(
    lambda rho: st.fixed_dictionaries({"rho": st.just(rho)}, optional={"phase": st.integers(0, rho - 1)})
)

MEMBERS = [
    Member("full", st.just({}), full_twice, [({}, 1, 1, [0]), ({}, 3, 4, [0, 0, 0])], []),
    Member("frozen", st.just({}), frozen_twice, [({}, 1, 1, [1]), ({}, 3, 4, [4, 4, 4])], []),
    Member(
        "step",
        step_parameters,
        step_twice,
        [
            ({"rho": 1}, 3, 4, [0, 0, 0]),
            ({"rho": 3}, 7, 4, [0, 4, 4, 0, 4, 4, 0]),
            ({"rho": 3, "phase": 2}, 7, 4, [4, 4, 0, 4, 4, 0, 4]),
            ({"rho": 9}, 4, 2, [0, 2, 2, 2]),  # rho > E: epoch 0 only
            ({"rho": 9, "phase": 5}, 4, 2, [2, 2, 2, 2]),  # phase >= E: never
            ({"rho": 5}, 1, 1, [0]),
        ],
        [
            ({"rho": 0}, ["rho", ">= 1", "0"]),
            ({"rho": -3}, ["rho", ">= 1", "-3"]),
            ({"rho": 2.5}, ["rho", "integer >= 1", "2.5"]),
            ({"rho": True}, ["rho", "integer", "True"]),
            ({"rho": "4"}, ["rho", "integer", "'4'"]),
            ({"rho": 3, "phase": 3}, ["phase", "0..2", "3"]),
            ({"rho": 3, "phase": -1}, ["phase", "0..2", "-1"]),
            ({"rho": 3, "phase": 0.0}, ["phase", "integer", "0.0"]),
            ({}, ["needs rho"]),
            ({"rho": 3, "period": 2}, ["does not know period=2", "step(rho, phase)"]),
        ],
    ),
]
NAMES = [member.name for member in MEMBERS]


def test_every_policy_sits_the_exam() -> None:
    assert list(POLICIES) == NAMES


@pytest.mark.parametrize("member", MEMBERS, ids=NAMES)
@settings(max_examples=200, deadline=None)
@given(data=st.data(), epochs=st.integers(1, 60), num_stages=st.integers(1, 6), seed=st.integers(0, 2**31 - 1))
def test_decisions_equal_the_second_implementation(member: Member, data: st.DataObject, epochs: int, num_stages: int, seed: int) -> None:
    parameters = data.draw(member.parameters)
    timeline = make_policy(member.name, **parameters).decisions(epochs, num_stages, seed)
    assert timeline == member.second(epochs, num_stages, seed, **parameters)
    assert len(timeline) == epochs
    assert all(type(n) is int and 0 <= n <= num_stages for n in timeline)


@pytest.mark.parametrize("member", MEMBERS, ids=NAMES)
def test_decisions_equal_those_written_by_hand(member: Member) -> None:
    assert member.examples
    for parameters, epochs, num_stages, timeline in member.examples:
        assert make_policy(member.name, **parameters).decisions(epochs, num_stages) == timeline


@pytest.mark.parametrize("member", MEMBERS, ids=NAMES)
@settings(max_examples=50, deadline=None)
@given(data=st.data(), epochs=st.integers(1, 20), num_stages=st.integers(1, 5), seed=st.integers(0, 99))
def test_resumed_anywhere_through_json_the_decisions_are_the_same(
    member: Member, data: st.DataObject, epochs: int, num_stages: int, seed: int
) -> None:
    policy = make_policy(member.name, **data.draw(member.parameters))
    timeline = policy.decisions(epochs, num_stages, seed)
    state: State = {}
    for epoch in range(epochs):
        resumed = policy_from_dict(json.loads(json.dumps(policy_to_dict(policy))))
        given_state, untouched = json.loads(json.dumps(state)), json.loads(json.dumps(state))
        decision, state = resumed.decide(Progress(epoch, epochs, num_stages, seed), {}, given_state)
        assert given_state == untouched
        assert decision.frozen_stages == timeline[epoch]
        assert decision.lr_factors is None or len(decision.lr_factors) == num_stages


@pytest.mark.parametrize("member", MEMBERS, ids=NAMES)
@given(data=st.data())
def test_json_round_trip(member: Member, data: st.DataObject) -> None:
    policy = make_policy(member.name, **data.draw(member.parameters))
    again = policy_from_dict(json.loads(json.dumps(policy_to_dict(policy))))
    assert again == policy
    assert again.parameters() == policy.parameters()
    assert make_policy(policy.name, **policy.parameters()) == policy


@pytest.mark.parametrize(
    ("name", "parameters", "words"), [(m.name, parameters, words) for m in MEMBERS for parameters, words in m.refused], ids=str
)
def test_parameters_out_of_range_are_refused_with_rule_and_value(name: str, parameters: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        make_policy(name, **parameters)
    message = str(error.value)
    assert name in message
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


@pytest.mark.parametrize("member", MEMBERS, ids=NAMES)
@pytest.mark.parametrize(("epochs", "num_stages"), [(0, 4), (-1, 4), (3, 0), (2.0, 4), (3, True)])
def test_impossible_runs_are_refused(member: Member, epochs: Any, num_stages: Any) -> None:
    parameters = member.examples[0][0]
    with pytest.raises(ConfigError, match=r"(epochs|num_stages) must be an integer >= 1, got"):
        make_policy(member.name, **parameters).decisions(epochs, num_stages)


def test_progress_refuses_an_epoch_outside_of_the_run() -> None:
    for epoch in (-1, 5):
        with pytest.raises(ConfigError, match=rf"epoch must be an integer in 0\.\.4, got {epoch}"):
            Progress(epoch, 5, 4)


def test_unknown_policies_and_parameters_are_named_with_what_is_known() -> None:
    with pytest.raises(ConfigError, match=r"unknown freezing policy 'stepp'; known policies: full, frozen, step; did you mean step\?"):
        make_policy("stepp", rho=3)
    with pytest.raises(ConfigError, match=r"policy full does not know rho=3; it is full, which takes no parameters"):
        make_policy("full", rho=3)
    for broken in ({"name": "full"}, {"name": "full", "parameters": 3}, {"name": "full", "parameters": {}, "more": 1}, ["full"]):
        with pytest.raises(ConfigError, match="mapping of name and parameters"):
            policy_from_dict(broken)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown freezing policy None"):
        policy_from_dict({"name": None, "parameters": {}})


def test_a_policy_that_needs_signals_has_no_timeline_before_training() -> None:
    class Listening(Policy):
        name = "listening"
        needs_signals = ("gradient_norm",)

        def decide(self, progress: Progress, signals: Signals, state: State) -> tuple[Decision, State]:
            return Decision(0 if signals["gradient_norm"] > 1 else 1), state

    with pytest.raises(ConfigError, match="gradient_norm measured while training"):
        Listening().decisions(3, 2)
    assert Listening().parameters() == {}


def test_policies_need_no_torch() -> None:
    code = "import sys, dbf_ray.freezing, dbf_ray.freezing.policies as p; p.make_policy('step', rho=2).decisions(4, 4); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
