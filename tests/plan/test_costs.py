"""Micro-batches and epochs by what steps cost: closed forms."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.cli.plan import main
from dbf_ray.config import Config, load_config
from dbf_ray.errors import ConfigError
from dbf_ray.plan import plan
from dbf_ray.plan.choices import Choice, Facts
from dbf_ray.plan.costs import Budget, Costs, training_seconds
from dbf_ray.plan.objects import Objects
from dbf_ray.plan.rules import duration, memory
from dbf_ray.plan.rules.duration import every_within, least_epochs
from dbf_ray.plan.rules.memory import largest_part, padded_area, side_that_fits

GB = 10**9
LATER = ("batch", "memory", "epochs", "optimization")
COSTS = Costs(
    device="cuda",
    side=256,
    step_seconds=(1.0, 1.5),
    step_bytes=(2 * GB, 3 * GB),
    fixed_bytes=(GB, GB),
    grown_bytes=(GB, 2 * GB),
    load_seconds=0.5,
    reload_seconds=0.1,
    evaluation_seconds=0.2,
    evaluation_bytes=(GB, GB + GB // 4),
    loaders=0,
    kept=False,
    train_images=100,
    eval_images=20,
    steps=(4, 4),
)


def facts(costs: Costs = COSTS, size: tuple[int, int] = (100, 100), **budget: float) -> Facts:
    """One object on each of as many images as ``costs`` says, of ``size`` (height, width)."""
    images = costs.train_images
    boxes = torch.tensor([[50.0, 50, 40, 20, 0]], dtype=torch.float64).repeat(images, 1)
    objects = Objects(
        boxes,
        torch.zeros(images, dtype=torch.int64),
        torch.zeros(images, dtype=torch.bool),
        torch.arange(images),
        torch.tensor([size]).repeat(images, 1),
        ["ship"],
    )
    return Facts(objects, objects, gpu=False, budget=Budget(**budget), measure=lambda _: costs)


def config(**keys: Any) -> Config:
    return load_config(None, {key.replace("__", "."): value for key, value in keys.items()})


def chosen(choices: list[Choice]) -> dict[str, Any]:
    return {choice.key: choice.value for choice in choices}


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["memory_gb", "train_hours"])
def test_a_budget_is_above_zero(name: str, value: float) -> None:
    option = "--" + name.replace("_", "-")
    with pytest.raises(ConfigError, match=rf"^{option} must be a number above 0, got {value:g}; give one as"):
        Budget(**{name: value})


@pytest.mark.parametrize("value", ["0", "-2", "nan", "inf", "much"])
@pytest.mark.parametrize("option", ["--memory-gb", "--train-hours"])
def test_a_command_refuses_it_before_anything_is_read(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my.yaml"
    assert main([str(tmp_path / "nowhere"), "--out", str(out), f"{option}={value}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert option in line
    assert value in line
    assert list(tmp_path.iterdir()) == []


def test_each_image_more_costs_what_the_second_did() -> None:
    assert [COSTS.bytes_of(n) / GB for n in (1, 2, 4)] == [2, 3, 5]
    prepared = replace(COSTS, fixed_bytes=(GB, GB + GB // 5))  # .1 for each image that is prepared
    assert [prepared.bytes_of(1, n) / GB for n in (1, 2, 8)] == pytest.approx([2, 2, 2.6])
    assert [prepared.bytes_of(2, n) / GB for n in (1, 4)] == pytest.approx([3.2, 3.6])
    passing = replace(COSTS, step_bytes=(6 * GB, 7 * GB))  # what is needed for a moment before the pass
    assert [passing.bytes_of(n) / GB for n in (1, 2, 4, 8)] == [6, 7, 7, 9]
    assert COSTS.step_seconds_of(4) == pytest.approx(0.5 + 4 * 0.5 + 4 * 0.5)  # never kept: loaded anew
    kept = replace(COSTS, kept=True)
    assert kept.step_seconds_of(4) == pytest.approx(2.5 + 4 * 0.1)
    assert kept.step_seconds_of(2, 2) == pytest.approx(2 * 1.5 + 4 * 0.1)
    assert kept.step_seconds_of(4, area=0.5) == pytest.approx(0.5 + 4 * 0.25 + 4 * 0.1)
    assert kept.first_seconds() == pytest.approx(0.4 * 120)
    assert COSTS.first_seconds() == 0
    assert kept.evaluation_seconds_of() == pytest.approx(20 * (1.5 * 0.2 + 0.1))
    assert kept.evaluation_seconds_of(workers=3) == pytest.approx(7 * (1.5 * 0.2 + 0.1))


def test_loading_beside_the_device_costs_only_where_it_is_slower() -> None:
    beside = replace(COSTS, loaders=2)
    assert beside.step_seconds_of(4) == pytest.approx(2.5)  # 4 x .5 by two processes take 1 s
    assert replace(beside, load_seconds=5.0).step_seconds_of(4) == pytest.approx(10.0)


def test_a_second_image_for_nothing_is_not_believed() -> None:
    free = replace(COSTS, step_seconds=(1.0, 1.0), kept=True)
    assert free.step_seconds_of(10) == pytest.approx(0.75 + 10 * 0.25 + 1.0)
    assert replace(free, device="cpu").step_seconds_of(10) == pytest.approx(0.5 + 10 * 0.5 + 1.0)


@given(
    grown=st.tuples(st.integers(1, 10**10), st.integers(1, 10**10)),
    images=st.integers(1, 64),
    limit=st.integers(10**9, 10**11),
)
def test_the_largest_part_fits_and_the_next_one_does_not(
    grown: tuple[int, int], images: int, limit: int
) -> None:
    costs = replace(COSTS, grown_bytes=grown, step_bytes=(GB + grown[0], GB + grown[1]))
    part = largest_part(costs.bytes_of, images, limit)
    if part:
        assert images % part == 0
        assert costs.bytes_of(part) <= limit
    larger = [n for n in range(part + 1, images + 1) if images % n == 0]
    assert all(costs.bytes_of(n) > limit for n in larger)


@given(
    step=st.floats(0.01, 100),
    evaluation=st.floats(0.001, 100),
    hours=st.floats(0.01, 1000),
    images=st.integers(8, 3000),
    every=st.integers(1, 5),
    workers=st.integers(1, 2),
    kept=st.booleans(),
)
def test_a_training_holds_its_hours(
    step: float, evaluation: float, hours: float, images: int, every: int, workers: int, kept: bool
) -> None:
    costs = replace(
        COSTS, step_seconds=(step, 1.6 * step), evaluation_seconds=evaluation, train_images=images, kept=kept
    )
    base = config(training__batch_size=2, evaluation__every=every, cluster__workers=workers)
    known = facts(costs, train_hours=hours)
    steps, part = images // 2, 2 // workers
    found = {}
    with contextlib.suppress(ConfigError):
        found = chosen(duration.rule(known, base))
    if not found:
        least, epoch = least_epochs(steps), steps * costs.step_seconds_of(part)
        due = every_within(epoch, costs.evaluation_seconds_of(workers), every, least)
        assert 3600 * hours * 0.9 <= training_seconds(
            costs, steps=steps, step=costs.step_seconds_of(part), epochs=least, every=due, workers=workers
        )
        return
    count, due = found["training.epochs"], found.get("evaluation.every", every)
    assert least_epochs(steps) <= count <= max(12, math.ceil(1500 / steps))
    seconds = training_seconds(
        costs, steps=steps, step=costs.step_seconds_of(part), epochs=count, every=due, workers=workers
    )
    assert seconds <= 3600 * hours * 0.9 * (1 + 1e-9)
    epoch = steps * costs.step_seconds_of(part)
    share = costs.evaluation_seconds_of(workers) / due / epoch
    assert share <= 1 / 9 * (1 + 1e-9) or due >= count


def test_without_a_budget_nothing_is_measured() -> None:
    def measure(_: Config) -> Costs:
        raise AssertionError("measured")

    known = replace(facts(), measure=measure)
    assert memory.rule(known, config()) == []
    assert chosen(duration.rule(known, config(training__batch_size=4))) == {
        "training.epochs": 60,
        "evaluation.every": 3,  # 25 of them at most
    }
    assert duration.warnings(known, config()) == memory.warnings(known, config()) == []


def test_a_batch_is_divided_where_memory_does_not_hold_it() -> None:
    known = facts(memory_gb=3.5)
    assert chosen(memory.rule(known, config(training__batch_size=8))) == {
        "training.accumulation": 4,
        "training.micro_batch_gb": 3.5,
    }
    shared = memory.rule(known, config(training__batch_size=8, cluster__workers=4))
    assert chosen(shared) == {"training.accumulation": 1}
    assert "3.00 GB with 2" in shared[0].why
    small = chosen(memory.rule(facts(memory_gb=2), config(training__batch_size=3)))
    assert small == {"training.accumulation": 3, "training.micro_batch_gb": 2, "evaluation.batch_size": 5}


def test_an_image_that_does_not_fit_is_refused_with_a_size_that_does() -> None:
    large = replace(COSTS, side=1024, step_bytes=(17 * GB, 33 * GB), grown_bytes=(16 * GB, 32 * GB))
    with pytest.raises(
        ConfigError, match=r"takes 17\.00 GB at 1024 px, got 6; give --data\.image_size 512, of"
    ):
        memory.rule(facts(large, memory_gb=6), config(data__image_size=1024))
    with pytest.raises(ConfigError, match=r"got 0\.5; give a lighter detector \(.*\), or more memory"):
        memory.rule(facts(large, memory_gb=0.5), config())
    assert side_that_fits(large, 1024, 17 * GB) == 896


def test_too_short_a_training_is_refused_and_a_short_one_is_said() -> None:
    base = config(training__batch_size=2)  # 50 steps in an epoch: 30 epochs are wanted
    epoch = 50 * COSTS.step_seconds_of(2) + COSTS.evaluation_seconds_of()
    known = facts(train_hours=2.5 * epoch / 0.9 / 3600)
    with pytest.raises(
        ConfigError, match=r"^--train-hours must hold 3 epochs of 50 steps, which take .* hours"
    ):
        duration.rule(known, base)
    given = duration.rule(replace(known, given=frozenset({"training.epochs"})), base)
    assert chosen(given)["training.epochs"] == 3
    five = facts(train_hours=5.5 * epoch / 0.9 / 3600)
    assert chosen(duration.rule(five, base))["training.epochs"] == 5
    (note,) = duration.warnings(five, config(training__batch_size=2, training__epochs=5))
    assert note.startswith("5 epochs are less than half of 30")
    (note,) = duration.warnings(five, config(training__batch_size=2, training__epochs=30))
    assert "more than --train-hours" in note


@pytest.mark.parametrize(
    ("epoch", "evaluation", "every", "epochs", "expected"),
    [(90, 10, 1, 12, 1), (90, 20, 1, 12, 2), (90, 5, 2, 12, 2), (1, 100, 1, 12, 12), (1, 100, 20, 12, 20)],
)
def test_evaluations_take_a_tenth(
    epoch: float, evaluation: float, every: int, epochs: int, expected: int
) -> None:
    assert every_within(epoch, evaluation, every, epochs) == expected


def test_oblong_images_are_padded_to_squares_where_they_are_turned() -> None:
    oblong = facts(size=(50, 100))
    still = config(data__flips=[], training__batch_size=4)
    turned = config(data__flips=["rotate90"], training__batch_size=4)
    assert padded_area(oblong, still) == pytest.approx(0.5)
    assert padded_area(oblong, turned) == pytest.approx(0.5 / 8 + 7 / 8, abs=0.05)
    assert padded_area(oblong, config(data__flips=[], data__pad_to="square")) == 1
    assert padded_area(facts(), config(data__augment__scales=[0.5, 0.5, 1.0], training__batch_size=1)) == (
        pytest.approx(0.5, abs=0.06)
    )


def test_what_is_given_stays_and_later_rules_see_the_batch_and_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "RULES", {name: plan.RULES[name] for name in LATER})
    monkeypatch.setattr(plan, "covered", lambda *_, **__: None)
    known, base = facts(memory_gb=2.5, train_hours=0.5), config(training__batch_size=4)
    train = plan.make_plan(known, base).config.training
    assert (train.accumulation, train.micro_batch_gb) == (4, 2.5)
    assert 3 <= train.epochs < 60
    assert train.warmup_steps == round(0.05 * 25 * train.epochs)
    given = frozenset({"training.accumulation", "training.epochs"})
    stays = plan.make_plan(replace(known, given=given), config(training__batch_size=4, training__epochs=7))
    kept = {choice.key: (choice.value, choice.stays) for choice in stays.choices}
    assert kept["training.accumulation"] == (4, 1)
    assert kept["training.epochs"][1] == 7
    assert stays.config.training.warmup_steps == round(0.05 * 25 * 7)
    assert memory.warnings(known, stays.config)[0].startswith("4 images at once take 5.00 GB")
