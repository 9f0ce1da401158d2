"""The rows of the policies' exam: a new policy is one row in MEMBERS, with a second implementation in
second_policies.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.freezing import second_policies as second

Parameters = dict[str, Any]
NAN = float("nan")


class Member(NamedTuple):
    """What the exam needs to know about a policy.

    Attributes:
        parameters: valid ones, for any run of at most 60 epochs.
        second: an independent implementation of the rule: (epochs, num_stages, seed, **parameters) -> list of
            prefixes, with the trace in the seed's place for adaptive policies.
        examples: (parameters, E, K, timeline) written down by hand; for adaptive policies with the trace as
            the fifth.
        refused: parameters out of range, and words of the rule and the value that the message must hold.
        trace: for adaptive policies what an epoch's signal would be, whatever is frozen: (K) -> values of one
            epoch.
        observed: what the policy sees of an epoch's value: (value, frozen prefix, K) -> signal.
        lr_factors: for policies that scale learning rates: (num_stages, **parameters) -> factors.
        trained: parameters of a training of six epochs in which the rule freezes and thaws, where it can.
    """

    name: str
    parameters: st.SearchStrategy[Parameters]
    second: Callable[..., list[int]]
    examples: list[tuple[Any, ...]]
    refused: list[tuple[Parameters, list[str]]]
    trace: Callable[[int], st.SearchStrategy[Any]] | None = None
    observed: Callable[[Any, int, int], Any] = lambda value, frozen, stages: (
        value if frozen < stages else None
    )
    lr_factors: Callable[..., list[float]] | None = None
    trained: Parameters = {}  # noqa: RUF012


def costs_of(num_stages: int) -> list[int]:
    """What a step costs with 0..K stages frozen, in the exam."""
    return [3 * num_stages + 2 - 2 * n for n in range(num_stages + 1)]


def some(**strategies: Any) -> st.SearchStrategy[Parameters]:
    return st.fixed_dictionaries(strategies)


shares = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0]))
step_parameters = st.integers(1, 40).flatmap(
    lambda rho: st.fixed_dictionaries({"rho": st.just(rho)}, optional={"phase": st.integers(0, rho - 1)})
)
lists = st.lists(st.integers(0, 70), unique=True).map(sorted)
inners = st.one_of(
    st.just({"name": "full"}),
    some(name=st.just("step"), rho=st.integers(1, 9)),
    some(name=st.just("gradual_unfreeze"), every=st.integers(1, 9)),
    some(name=st.just("bernoulli"), p=shares),
)

MEMBERS = [
    Member("full", st.just({}), second.full, [({}, 1, 1, [0]), ({}, 3, 4, [0, 0, 0])], []),
    Member("frozen", st.just({}), second.frozen, [({}, 1, 1, [1]), ({}, 3, 4, [4, 4, 4])], []),
    Member(
        "step",
        step_parameters,
        second.step,
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
        trained={"rho": 3},
    ),
    Member(
        "epochs",
        some(epochs=lists),
        second.listed,
        [
            ({"epochs": [0, 3]}, 5, 4, [0, 4, 4, 0, 4]),
            ({"epochs": []}, 2, 3, [3, 3]),
            ({"epochs": [0, 9]}, 1, 1, [0]),
        ],
        [
            ({"epochs": 3}, ["list", "3"]),
            ({"epochs": "03"}, ["list", "'03'"]),
            ({"epochs": [0, -1]}, [">= 0", "-1"]),
            ({"epochs": [0, 1.5]}, ["integer", "1.5"]),
            ({"epochs": [3, 0]}, ["increase", "[3, 0]"]),
            ({"epochs": [2, 2]}, ["once", "[2, 2]"]),
        ],
        trained={"epochs": [1, 4]},
    ),
    Member(
        "random_budget",
        some(
            budget=st.integers(0, 1), draw=st.none() | st.integers(0, 9)
        ),  # any larger one by a test of its own, which knows the number of epochs
        second.random_budget,
        [({"budget": 0}, 3, 4, [4, 4, 4]), ({"budget": 3}, 3, 4, [0, 0, 0]), ({"budget": 1}, 1, 1, [0])],
        [
            ({"budget": -1}, ["budget", ">= 0", "-1"]),
            ({"budget": 1.0}, ["integer", "1.0"]),
            ({"budget": 1, "draw": -1}, ["draw", "equal to 0", "-1"]),
        ],
        trained={"budget": 3},
    ),
    Member(
        "bernoulli",
        some(p=shares),
        second.bernoulli,
        [({"p": 0}, 3, 4, [4, 4, 4]), ({"p": 1}, 3, 4, [0, 0, 0]), ({"p": 1.0}, 1, 1, [0])],
        [
            ({"p": -0.1}, ["p", ">= 0", "-0.1"]),
            ({"p": 1.1}, ["<= 1", "1.1"]),
            ({"p": NAN}, ["nan"]),
            ({"p": True}, ["True"]),
        ],
        trained={"p": 0.5},
    ),
    Member(
        "front",
        some(budget=st.integers(0, 70)),
        second.front,
        [({"budget": 2}, 4, 3, [0, 0, 3, 3]), ({"budget": 0}, 2, 3, [3, 3]), ({"budget": 9}, 2, 3, [0, 0])],
        [({"budget": -1}, ["budget", ">= 0", "-1"]), ({"budget": "2"}, ["integer", "'2'"])],
        trained={"budget": 2},
    ),
    Member(
        "back",
        some(budget=st.integers(0, 70)),
        second.back,
        [({"budget": 2}, 4, 3, [3, 3, 0, 0]), ({"budget": 0}, 2, 3, [3, 3]), ({"budget": 9}, 2, 3, [0, 0])],
        [({"budget": -1}, ["budget", ">= 0", "-1"]), ({"budget": 2.0}, ["integer", "2.0"])],
        trained={"budget": 2},
    ),
    Member(
        "lr_scale",
        some(factor=st.floats(1e-6, 10)),
        lambda epochs, num_stages, seed, factor: second.full(epochs, num_stages, seed),
        [({"factor": 0.1}, 2, 3, [0, 0])],
        [
            ({"factor": 0}, ["factor", "> 0", "0"]),
            ({"factor": -1.0}, ["-1.0"]),
            ({"factor": float("inf")}, ["inf"]),
        ],
        lr_factors=lambda num_stages, factor: [factor for _ in range(num_stages)],
        trained={"factor": 0.1},
    ),
    Member(
        "layer_decay",
        some(xi=st.floats(0.01, 1)),
        lambda epochs, num_stages, seed, xi: second.full(epochs, num_stages, seed),
        [({"xi": 0.5}, 2, 3, [0, 0])],
        [({"xi": 0.0}, ["xi", "> 0", "0.0"]), ({"xi": 1.5}, ["<= 1", "1.5"])],
        lr_factors=lambda num_stages, xi: [xi**below for below in reversed(range(num_stages))],
        trained={"xi": 0.5},
    ),
    Member(
        "warmup_step",
        some(warmup=st.integers(0, 70), rho=st.integers(1, 30)),
        second.warmup_step,
        [
            ({"warmup": 2, "rho": 3}, 7, 4, [4, 4, 0, 4, 4, 0, 4]),
            ({"warmup": 0, "rho": 2}, 3, 1, [0, 1, 0]),
            ({"warmup": 5, "rho": 1}, 3, 2, [2, 2, 2]),
        ],
        [
            ({"warmup": -1, "rho": 2}, ["warmup", ">= 0", "-1"]),
            ({"warmup": 1, "rho": 0}, ["rho", ">= 1", "0"]),
        ],
        trained={"warmup": 1, "rho": 2},
    ),
    Member(
        "cosine",
        some(start=shares, end=shares),
        second.cosine,
        [
            ({"start": 1, "end": 1}, 3, 4, [0, 0, 0]),
            ({"start": 0, "end": 0}, 3, 4, [4, 4, 4]),
            ({"start": 0.5, "end": 0.5}, 4, 2, [0, 2, 0, 2]),
            (
                {"start": 1.0, "end": 0.0},
                5,
                4,
                [0, 0, 4, 0, 4],
            ),  # .5 + 1 + .854 + .5 + .146 + 0: the third whole comes with .146, just so
            ({"start": 0.5, "end": 0.0}, 1, 4, [0]),
            ({"start": 0.4, "end": 1.0}, 1, 4, [4]),
        ],
        [
            ({"start": 1.1, "end": 0}, ["start", "<= 1", "1.1"]),
            ({"start": 1, "end": -0.5}, ["end", ">= 0", "-0.5"]),
        ],
        trained={"start": 1.0, "end": 0.2},
    ),
    Member(
        "gradual_unfreeze",
        some(every=st.integers(1, 30)),
        second.gradual_unfreeze,
        [
            ({"every": 2}, 8, 4, [3, 3, 2, 2, 1, 1, 0, 0]),
            ({"every": 1}, 3, 1, [0, 0, 0]),
            ({"every": 9}, 2, 4, [3, 3]),
        ],
        [({"every": 0}, ["every", ">= 1", "0"])],
        trained={"every": 2},
    ),
    Member(
        "gradual_freeze",
        some(t0=shares, p=st.one_of(st.floats(0.1, 5), st.sampled_from([1.0, 3.0]))),
        second.gradual_freeze,
        [
            ({"t0": 0.5}, 8, 4, [0, 0, 0, 0, 0, 1, 2, 3]),  # times .5 .625 .75 .875; strictly later
            ({"t0": 0.5, "p": 3}, 8, 4, [0, 0, 2, 2, 3, 3, 4, 4]),  # times .125 .244 .42 .67
            ({"t0": 1}, 3, 2, [0, 0, 0]),
            ({"t0": 0.3}, 20, 4, [0] * 7 + [1] * 3 + [2] * 4 + [3] * 3 + [4] * 3),
            ({"t0": 0, "p": 1}, 3, 1, [0, 1, 1]),
        ],
        [
            ({"t0": -0.1}, ["t0", ">= 0", "-0.1"]),
            ({"t0": 2}, ["<= 1", "2"]),
            ({"t0": 0.5, "p": 0}, ["p", "> 0", "0"]),
        ],
        trained={"t0": 0.3, "p": 2},
    ),
    Member(
        "multirate_step",
        some(rho=st.integers(1, 12), growth=st.floats(1, 4)),
        second.multirate_step,
        [
            ({"rho": 1, "growth": 2}, 9, 3, [0, 2, 1, 2, 0, 2, 1, 2, 0]),
            ({"rho": 2, "growth": 1}, 4, 3, [0, 3, 0, 3]),
            ({"rho": 2, "growth": 1.5}, 7, 2, [0, 2, 1, 0, 1, 2, 0]),  # periods 2 and 3
        ],
        [({"rho": 0}, ["rho", "1..1000000", "0"]), ({"rho": 2, "growth": 0.5}, ["growth", ">= 1", "0.5"])],
        trained={"rho": 1, "growth": 1.6},
    ),
    Member(
        "gradnorm",
        some(
            percentile=st.one_of(st.floats(0, 100), st.sampled_from([0, 50, 100])),
            window=st.integers(1, 4),
            recheck=st.integers(1, 9),
        ),
        second.gradnorm,
        [
            # From epoch 2 on two windows are known. Changes .1, .5, 1: below their median .5 is the first
            # stage only.
            (
                {"percentile": 50, "window": 1, "recheck": 9},
                3,
                3,
                [0, 0, 1],
                [[1, 1, 1], [1.1, 1.5, 2], [0, 0, 0]],
            ),
            # The probe in epoch 3 (recheck after epoch 1) finds the first stage alive again.
            (
                {"percentile": 50, "window": 1, "recheck": 2},
                5,
                2,
                [0, 0, 1, 0, 0],
                [[1, 1], [1.1, 2], [0, 2], [9, 2.1], [0, 0]],
            ),
            (
                {"percentile": 100, "window": 1, "recheck": 5},
                4,
                1,
                [0, 0, 0, 0],
                [[1], [2], [2], [2]],
            ),  # K = 1: as full
        ],
        [
            ({"percentile": 101, "window": 1, "recheck": 1}, ["percentile", "<= 100", "101"]),
            ({"percentile": 50, "window": 0, "recheck": 1}, ["window", ">= 1", "0"]),
            ({"percentile": 50, "window": 1, "recheck": 0}, ["recheck", ">= 1", "0"]),
        ],
        trace=lambda stages: st.lists(
            st.one_of(st.floats(0, 10), st.sampled_from([0.0, 1.0, 2.0])), min_size=stages, max_size=stages
        ),
        observed=lambda value, frozen, stages: None if frozen == stages else [None] * frozen + value[frozen:],
        trained={"percentile": 90, "window": 1, "recheck": 2},
    ),
    Member(
        "aimd",
        st.integers(1, 9).flatmap(
            lambda most: some(threshold=shares, start=st.integers(1, most), max_rho=st.just(most))
        ),
        second.aimd,
        [
            (
                {"threshold": 0.5, "max_rho": 9},
                8,
                4,
                [0, 4, 4, 0, 4, 4, 4, 0],
                [0.1] * 8,
            ),  # 3 and 4 epochs later
            ({"threshold": 0.5, "start": 4, "max_rho": 9}, 6, 4, [0, 4, 0, 0, 0, 0], [0.9] * 6),  # 2, then 1
            ({"threshold": 0.5, "start": 2, "max_rho": 2}, 5, 4, [0, 4, 0, 4, 0], [0.0] * 5),
        ],
        [
            ({"threshold": 1.5, "max_rho": 4}, ["threshold", "<= 1", "1.5"]),
            ({"threshold": 0.5, "start": 0, "max_rho": 4}, ["start", ">= 1", "0"]),
            ({"threshold": 0.5, "start": 5, "max_rho": 4}, ["max_rho", ">= start = 5", "4"]),
        ],
        trace=lambda stages: shares,
        trained={"threshold": 1.0, "start": 1, "max_rho": 3},
    ),
    Member(
        "drift",
        st.tuples(shares, shares, st.integers(1, 9)).map(
            lambda t: {"low": min(t[:2]), "high": max(t[:2]), "recheck": t[2]}
        ),
        second.drift,
        [
            (
                {"low": 0.2, "high": 0.5, "recheck": 3},
                9,
                4,
                [0, 0, 4, 4, 0, 0, 4, 4, 0],
                [0.3, 0.6, 0, 0, 0.1, 0.2, 0, 0, 0],
            ),
            ({"low": 0.2, "high": 0.5, "recheck": 1}, 3, 4, [0, 0, 0], [0.9, 0.9, 0.9]),
        ],
        [
            ({"low": -0.1, "high": 0.5, "recheck": 2}, ["low", ">= 0", "-0.1"]),
            ({"low": 0.5, "high": 0.4, "recheck": 2}, ["high", ">= low = 0.5", "0.4"]),
            ({"low": 0.1, "high": 0.4, "recheck": 0}, ["recheck", ">= 1", "0"]),
        ],
        trace=lambda stages: shares,
        trained={"low": 0.0, "high": 0.0, "recheck": 2},
    ),
    Member(
        "plateau",
        some(patience=st.integers(1, 5), min_delta=st.one_of(st.just(0.0), st.floats(0, 0.3))),
        second.plateau,
        [
            # .3 rises above .2; .31 and .32 are less than .05 above .3: two epochs without a rise.
            ({"patience": 2, "min_delta": 0.05}, 6, 4, [0, 4, 4, 4, 0, 4], [0.2, 0.3, 0.31, 0.32, 0.3, 0.5]),
            # Slow progress adds up: .325 is .025 above .3, the last rise, and .35 as much above .325.
            (
                {"patience": 3, "min_delta": 0.02},
                7,
                4,
                [0, 4, 4, 4, 4, 4, 4],
                [0.2, 0.3, 0.31, 0.325, 0.33, 0.34, 0.35],
            ),
            (
                {"patience": 1, "min_delta": 0.0},
                4,
                4,
                [0, 4, 4, 4],
                [0.2, None, 0.3, 0.4],
            ),  # not evaluated: does not count
            ({"patience": 1, "min_delta": 0.0}, 5, 4, [0, 4, 0, 4, 0], [0.2] * 5),
        ],
        [
            ({"patience": 0, "min_delta": 0.1}, ["patience", ">= 1", "0"]),
            ({"patience": 1, "min_delta": -0.1}, ["min_delta", ">= 0", "-0.1"]),
        ],
        trace=lambda stages: st.one_of(
            st.none(), st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5]), st.floats(0, 1)
        ),
        observed=lambda value, frozen, stages: value,
        trained={"patience": 1, "min_delta": 0.5},
    ),
    Member(
        "budget",
        some(limit=st.one_of(st.floats(0.6, 1), st.sampled_from([0.75, 1.0])), inner=inners),
        lambda epochs, num_stages, seed, **parameters: second.budget(
            epochs, num_stages, seed, costs_of(num_stages), **parameters
        ),
        [
            # Costs 14 and 6: of 4 x 14 = 56, .75 is 42. Two full epochs and two frozen ones cost 40; a third
            # full one would make it 48.
            ({"limit": 0.75, "inner": {"name": "full"}}, 4, 4, [0, 0, 4, 4]),
            ({"limit": 1.0, "inner": {"name": "step", "rho": 2}}, 4, 4, [0, 4, 0, 4]),
            # Costs 5 and 3: .6 is what frozen costs.
            ({"limit": 0.6, "inner": {"name": "full"}}, 3, 1, [1, 1, 1]),
        ],
        [
            ({"limit": 0, "inner": {"name": "full"}}, ["limit", "> 0", "0"]),
            ({"limit": 1.5, "inner": {"name": "full"}}, ["limit", "<= 1", "1.5"]),
            ({"limit": 0.9, "inner": "full"}, ["inner", "'full'"]),
            ({"limit": 0.9, "inner": {"rho": 2}}, ["inner", "{'rho': 2}"]),
            ({"limit": 0.9, "inner": {"name": "step", "rho": 0}}, ["rho", ">= 1", "0"]),
        ],
        trained={"limit": 0.95, "inner": {"name": "aimd", "threshold": 0.0, "max_rho": 3}},
    ),
]
