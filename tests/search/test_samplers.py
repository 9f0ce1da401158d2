"""What samplers choose, without a study: pools of settings, and what is known of them."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dbf_ray.config import Config, with_overrides
from dbf_ray.errors import ConfigError
from dbf_ray.freezing import make_policy
from dbf_ray.search.cost import Costs
from dbf_ray.search.features import Candidates, trained_per_quarter
from dbf_ray.search.samplers import SAMPLERS, Candidate, Facts, Told, cost, make_sampler
from dbf_ray.search.samplers.cost import Cost
from dbf_ray.search.settings import Setting, Settings
from dbf_ray.search.sharing import Sharing
from dbf_ray.search.spaces import load_space
from dbf_ray.search.surrogate import Surrogate
from tests.search.begins import four_stages
from tests.search.test_spaces import new_trial

Overrides = dict[str, object]
FULL, FROZEN = {"freezing.policy": "full"}, {"freezing.policy": "frozen"}


def made(overrides: list[Overrides], epochs: int = 12, **changes: object) -> tuple[list[Setting], Settings]:
    settings = Settings(with_overrides(Config(), {"training.epochs": epochs, **changes}), four_stages)
    return [settings.make(one) for one in overrides], settings


def candidates(overrides: list[Overrides], epochs: int = 12) -> list[Candidate]:
    found, settings = made(overrides, epochs)
    known = Candidates(settings, found, Costs(settings).known)
    return [known.of(one) for one in found]


def step(rho: int, **more: object) -> Overrides:
    return {"freezing.policy": "step", "freezing.rho": rho, **more}


def quarters(overrides: Overrides, epochs: int = 12) -> tuple[float, ...] | None:
    (one,), settings = made([overrides], epochs)
    return trained_per_quarter(one, settings.beginning(one.config).horizon)


def test_features_say_when_is_trained_whatever_the_policy_is_called() -> None:
    assert quarters(FULL) == pytest.approx((1, 1, 1, 1))
    assert quarters(FROZEN) == (0, 0, 0, 0)
    assert quarters(step(3)) == pytest.approx((1 / 3,) * 4)
    assert quarters(step(12)) == pytest.approx((1 / 3, 0, 0, 0))
    assert quarters({"freezing.policy": "front", "freezing.budget": 4}) == pytest.approx((1, 1 / 3, 0, 0))
    assert quarters({"freezing.policy": "lr_scale", "freezing.factor": 0.1}) == pytest.approx((0.1,) * 4)
    assert quarters(step(2), epochs=2) == pytest.approx((1, 1, 0, 0))  # a quarter is half an epoch
    assert quarters({"freezing.policy": "aimd", "freezing.threshold": 0.5, "freezing.max_rho": 4}) is None


def test_stages_count_by_their_compute() -> None:
    (one,), settings = made([{"freezing.policy": "gradual_unfreeze", "freezing.every": 3}])
    horizon = settings.beginning(one.config).horizon
    costs = horizon.model_copy(update={"costs": (10, 4, 3, 2, 2)})  # stages of 6/8, 1/8, 1/8 and 0
    prefixes = make_policy("gradual_unfreeze", every=3).decisions(12, 4)
    levels = [(costs.costs[prefix] - 2) / 8 for prefix in prefixes]
    by_quarter = [sum(levels[3 * place : 3 * place + 3]) / 3 for place in range(4)]
    assert trained_per_quarter(one, costs) == pytest.approx(by_quarter)
    always = costs.model_copy(update={"always_frozen": 1})
    assert trained_per_quarter(made([FULL])[0][0], always) == pytest.approx((1,) * 4)


def test_what_else_is_drawn_is_scaled_or_has_a_number_for_each_value() -> None:
    drawn = [
        {**FULL, "training.lr": 1e-4, "training.optimizer": "sgd"},
        {**FULL, "training.lr": 1e-3, "training.optimizer": "adamw"},
        {**FULL, "training.lr": 1e-2, "training.optimizer": "sgd"},
        FULL,
    ]
    others = [one.features[4:] for one in candidates(drawn)]
    assert [one[0] for one in others[:3]] == pytest.approx([0, 0.5, 1])  # by its logarithm
    assert [one[1:] for one in others[:3]] == [(0, 1), (1, 0), (0, 1)]
    assert 0 < others[3][0] < 1  # the base's own
    assert candidates([step(2), step(3)])[0].features == pytest.approx((2 / 3, 1 / 3, 2 / 3, 1 / 3))


def test_a_known_cost_is_over_the_base_whatever_the_setting_draws() -> None:
    found, settings = made([FULL, FROZEN, step(2), {**FULL, "training.epochs": 6}])
    ratio = Costs(settings).known
    assert [ratio(one) for one in found] == pytest.approx([1, 1 / 3, 2 / 3, 1 / 2])


def trained(candidate: Candidate, accuracy: float) -> Told:
    assert candidate.cost is not None
    return Told(candidate, accuracy, candidate.cost)


def world(candidate: Candidate) -> float:
    """Early training is worth most."""
    return 0.3 + 0.3 * candidate.features[0] ** 0.5 + 0.1 * candidate.features[2] ** 0.5


def space_pool(name: str, count: int) -> list[Candidate]:
    space, (_, settings) = load_space(name), made([])
    drawn = [settings.make(space.overrides(new_trial(seed), settings.config)) for seed in range(count)]
    found = [*{one.key: one for one in [*map(settings.make, space.baselines), *drawn]}.values()]
    known = Candidates(settings, found, Costs(settings).known)
    return [known.of(one) for one in found]


def front_size(told: list[Told]) -> float:
    from dbf_ray.reports.pareto import hypervolume

    return hypervolume([(one.accuracy, one.cost) for one in told], (0.2, 1.1))


def searched(name: str, pool: list[Candidate], trials: int, seed: int = 0) -> list[Told]:
    """After the two baselines, one after the other."""
    sampler = make_sampler(name, Facts(pool, True), seed)
    told, left, have = [trained(one, world(one)) for one in pool[:2]], pool[2:], set[str]()
    for _ in range(trials):
        place = sampler.next(left, told, [], have)
        assert place is not None
        chosen = left.pop(place)
        told.append(trained(chosen, world(chosen)))
        have |= {*chosen.setting.states}
    return told


def test_the_known_cost_finds_a_better_front_than_chance_and_nearly_all_there_is() -> None:
    pool = space_pool("policies", 150)
    best = front_size([trained(one, world(one)) for one in pool])
    begin = front_size(searched("cost", pool, 0))
    found = (front_size(searched("cost", pool, 8)) - begin) / (best - begin)
    by_chance = [front_size(searched("random", pool, 8, seed)) - begin for seed in range(5)]
    assert found > 0.9
    assert found > max(by_chance) / (best - begin)


def test_what_is_dominated_for_certain_is_not_chosen() -> None:
    pool = candidates([FULL, FROZEN, step(2), step(3), step(4), step(6)])
    told = [trained(pool[0], 0.7), trained(pool[1], 0.2), trained(pool[3], 0.7)]  # step(3) is as good as full
    left = [pool[2], pool[4], pool[5]]
    gains = Cost().gains(left, told)
    assert gains[0] < gains[1:].min()  # step(2) costs more than step(3)
    assert Cost().next(left, told, [], set()) != 0


def test_what_is_begun_already_is_cheaper_and_what_runs_is_not_chosen_again_in_other_words() -> None:
    pool = candidates([FULL, FROZEN, step(4), step(5), step(9)])
    told = [trained(pool[0], 0.7), trained(pool[1], 0.3)]
    left, sampler = pool[2:], Cost()
    gains = sampler.gains(left, told)
    deepest_way = {state for one in left[1:2] for state in one.setting.states[:12]}
    assert sampler.next(left, told, [], deepest_way) == 1  # an epoch is left of it
    beside = sampler.gains(left, told, running=[left[0]])
    assert beside[0] < gains[0]
    assert beside[1] < gains[1]  # alike


@pytest.mark.parametrize("told", [0, 1])
def test_without_a_model_what_is_least_alike_is_first(told: int) -> None:
    pool = candidates([FULL, step(2), step(3), FROZEN])
    known = [trained(pool[0], 0.5)][:told]
    assert Cost().next(pool[told:], known, [] if told else [pool[0]], set()) == len(pool) - 1 - told
    assert Cost().next(pool, [], [], set()) == 0  # the dearest
    assert Cost().next([], known, [], set()) is None


def in_order(sampler_name: str, pool: list[Candidate], workers: int, most: int) -> tuple[int, int]:
    """Trains all of a pool as :func:`tests.search.counting.train_all`, in the sampler's order: epochs that
    were trained, and the most states that were kept at once.
    """
    sampler, sharing = make_sampler(sampler_name, Facts(pool, True)), Sharing(most)
    left, have, epochs, largest = [*pool], set[str](), 0, 0
    running: dict[int, tuple[Candidate, dict[int, str], int]] = {}
    numbers = itertools.count()
    while left or running:
        while left and len(running) < workers:
            ready = [one for one in left if not sharing.waits(one.setting.states, have)]
            place = sampler.next(ready, [], [one for one, _, _ in running.values()], have)
            if place is None:
                break
            left.remove(ready[place])
            names, number = ready[place].setting.states, next(numbers)
            visit = sharing.begin(number, names, [one.setting.states for one in left], have)
            begin = names.index(visit.begins[0]) if visit.begins else 0
            running[number] = ready[place], visit.keep, begin
        for number, (one, keep, epoch) in list(running.items()):
            epochs += 1
            running[number] = one, keep, epoch + 1
            have |= {keep[epoch + 1]} if epoch + 1 in keep else set()
            sharing.reached(number, epoch + 1)
            if epoch + 2 == len(one.setting.states):
                sharing.end(number)
                del running[number]
            have &= sharing.needed([other.setting.states for other in left], have)
            largest = max(largest, len(have))
    return epochs, largest


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize(("epochs", "trained_epochs"), [(12, 90), (20, 230)])
def test_a_grid_of_rho_needs_few_states(epochs: int, trained_epochs: int, workers: int) -> None:
    for order in (1, -1):
        pool = candidates([FULL, FROZEN, *[step(rho) for rho in range(2, epochs + 1)]][::order], epochs)
        found, largest = in_order("grid", pool, workers, most=16)
        assert found == trained_epochs
        assert largest <= 6


def test_a_grid_of_policies_trains_each_beginning_once() -> None:
    pool = space_pool("policies", 120)
    distinct = {state for one in pool for state in one.setting.states[1:]}
    epochs, largest = in_order("grid", pool, 2, most=16)
    assert epochs == len(distinct)
    assert largest <= 16


def test_chance_depends_on_the_seed_and_what_is_known_alone() -> None:
    pool = candidates([step(rho) for rho in range(2, 12)])
    chosen = [make_sampler("random", Facts(pool, True), seed).next(pool, [], [], set()) for seed in range(40)]
    again = [make_sampler("random", Facts(pool, True), seed).next(pool, [], [], set()) for seed in range(40)]
    assert chosen == again
    assert set(chosen) == set(range(10))


AIMD: Overrides = {"freezing.policy": "aimd", "freezing.threshold": 0.5, "freezing.max_rho": 4}


def unknown(candidate: Candidate) -> Candidate:
    return dataclasses.replace(candidate, cost=None)


REFUSED: dict[str, tuple[str, Callable[[], Facts], str]] = {
    "cost, an adaptive policy": (
        "cost",
        lambda: Facts(candidates([step(2), AIMD]), True),
        "s.py: the sampler cost must know when a setting trains, which policy aimd decides while it does; "
        "give --search.sampler grid, or tpe, random",
    ),
    "cost, known only afterwards": (
        "cost",
        lambda: Facts([unknown(one) for one in candidates([step(2)])], False),
        "s.py: the sampler cost must know what each setting costs before it is trained, which this "
        "`search.cost` does not say; give --search.sampler tpe, or random",
    ),
    "grid, without end": (
        "grid",
        lambda: Facts(candidates([step(2)]), False),
        "s.py: the sampler grid trains all settings of a space, and this one has more than the 1 looked at; "
        "give --search.sampler cost, or tpe, random",
    ),
    "none": (
        "gird",
        lambda: Facts([], True),
        "s.py: a sampler must be one of cost, grid, tpe, random, got 'gird'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_sampler_that_cannot_serve_a_space_names_one_that_can(case: str) -> None:
    name, facts, words = REFUSED[case]
    with pytest.raises(ConfigError) as refused:
        make_sampler(name, facts(), space="s.py")
    assert str(refused.value) == words
    if case != "none":
        able = words.split("--search.sampler ")[1].split(",")[0]
        assert make_sampler(able, facts()).name == able


def test_by_default_the_cost_decides_where_it_is_known() -> None:
    assert make_sampler(None, Facts(candidates([step(2)]), False)).name == "cost"
    assert make_sampler(None, Facts(candidates([AIMD]), False)).name == "tpe"


def test_samplers_need_neither_ray_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys, dbf_ray.search.samplers as s; print(len(s.SAMPLERS), "
        "[name for name in ('ray', 'torch', 'optuna', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split(maxsplit=1) == [str(len(SAMPLERS)), "[]\n"]


def told_of(count: int) -> list[Told]:
    """Trained settings with costs and accuracies that grow together, and every third one worse."""
    setting = Settings(Config(), four_stages).make({"freezing.policy": "full"})
    return [
        Told(
            Candidate(setting, place / count, (place / count, 0.5, 0.5, 0.5)),
            (place / count) ** 0.5 - 0.2 * (place % 3 == 1),
            place / count,
        )
        for place in range(count)
    ]


def test_of_very_many_the_model_sees_the_front_and_some_of_all_costs() -> None:
    few, many = told_of(cost.MOST), told_of(3 * cost.MOST)
    assert cost._seen(few) == few
    front, best = [], -1.0
    for one in many:  # by cost
        if one.accuracy > best:
            best = one.accuracy
            front.append(one)
    seen = cost._seen(many)
    assert len(front) > cost.MOST
    assert seen == front, "a front is seen whole"
    worse = [replace(one, accuracy=one.accuracy if place < 20 else -1.0) for place, one in enumerate(many)]
    seen = cost._seen(worse)
    assert len(seen) == cost.MOST
    assert [one for one in worse[:20] if one in front] == [one for one in seen[:20] if one in front]
    assert seen[-1].cost > 0.9, "of all costs"


def test_the_models_shape_is_chosen_anew_up_to_forty_and_then_for_each_fifth_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[int] = []
    real = cost.Surrogate

    def made(features: object, values: list[float], noise: float, shape: object = None) -> Surrogate:
        if shape is None:
            chosen.append(len(values))
        return real(features, values, noise, shape=shape)  # type: ignore[arg-type]

    monkeypatch.setattr(cost, "Surrogate", made)
    sampler, told = cost.Cost(), told_of(80)
    pool = [one.candidate for one in told[:3]]
    for count in range(38, 81):
        sampler.gains(pool, told[:count])
    assert chosen == [38, 39, 40, 48, 58, 70]
