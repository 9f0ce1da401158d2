"""What settings cost, as shares of the base configuration's full training: against closed forms, and against
a sum over every image of every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dbf_ray.config import Config, with_overrides
from dbf_ray.cost import Stretch
from dbf_ray.freezing import Horizon, make_policy
from dbf_ray.search.cost import Costs
from dbf_ray.search.settings import Beginning, Settings

IMAGES, FLOPS = 50, (30, 26, 22, 18, 14)  # of an image of 100 pixels, by frozen stages


def begins(config: Config) -> Beginning:
    """Four stages, whose FLOPs are in proportion to pixels; an incomplete batch is dropped."""
    steps = IMAGES // config.training.batch_size
    pixels, every = config.data.image_size**2, config.freezing.interval.every
    horizon = Horizon(
        -(-config.training.epochs // every),
        4,
        costs=tuple(each * pixels for each in FLOPS),
        block_steps=every * steps,
        total_steps=config.training.epochs * steps,
        always_frozen=config.detector.frozen_stages,
    )
    return Beginning(horizon, {}, hits=lambda prefix, steps: 0.5 if steps > 60 else 0.0)


def settings(**base: Any) -> Settings:
    return Settings(with_overrides(Config(), {"data.image_size": 128, "training.epochs": 24, **base}), begins)


def slow_sum(config: Config) -> int:
    """FLOPs of each image of each step of each epoch, one after the other."""
    policy = make_policy(config.freezing.policy, **config.freezing.parameters)
    horizon = begins(config).horizon
    decided = policy.timeline(horizon)
    total = 0
    for step in range(horizon.all_steps):
        frozen = max(decided[step // horizon.block_steps].num_frozen, config.detector.frozen_stages)
        for _ in range(config.training.batch_size):
            total += FLOPS[frozen] * config.data.image_size**2
    return total


FULL = {"freezing.policy": "full"}
PLATEAU = {"freezing.policy": "plateau", "freezing.patience": 1, "freezing.min_delta": 0.1}
STEP = {"freezing.policy": "step", "freezing.rho": 4}


def test_a_small_training_is_not_as_dear_as_a_large_one() -> None:
    """Of the issue: 64 px and 6 epochs beside 128 px and 24; a run's own ratio calls both 1."""
    space = settings()
    known = Costs(space).known
    assert known(space.make(FULL)) == 1.0
    small = {"data.image_size": 64, "training.epochs": 6, "training.milestones": [4]}
    assert known(space.make(FULL | small)) == 1 / 16
    shares = (6 * 30 + 18 * 14) / (24 * 30)
    assert known(space.make(STEP)) == pytest.approx(shares)
    assert known(space.make(STEP | {"data.image_size": 64})) == pytest.approx(shares / 4)


@pytest.mark.parametrize(
    "drawn",
    [
        FULL,
        STEP,
        STEP | {"freezing.rho": 5, "training.epochs": 7, "training.milestones": [5]},
        STEP | {"training.batch_size": 16, "data.image_size": 96},
        STEP | {"detector.frozen_stages": 2},
        STEP | {"freezing.interval": {"every": 5, "unit": "epochs"}},
        {"freezing.policy": "front", "freezing.budget": 11, "training.batch_size": 3},
    ],
)
@pytest.mark.parametrize("base", [{}, {"detector.frozen_stages": 1, "training.batch_size": 12}])
def test_a_known_cost_equals_a_sum_over_every_image(base: dict[str, Any], drawn: dict[str, Any]) -> None:
    space = settings(**base)
    setting, whole = space.make(drawn), space.make(FULL)
    expected = slow_sum(setting.config) / slow_sum(whole.config)
    assert Costs(space).known(setting) == pytest.approx(expected, rel=1e-12)
    assert Costs(space).values(setting, {"compute_ratio": 7.0})["compute_ratio"] == Costs(space).known(
        setting
    )


def test_an_adaptive_policy_costs_what_its_steps_did() -> None:
    space = settings()
    adaptive = space.make(PLATEAU | {"training.epochs": 2, "training.milestones": [1]})
    costs = Costs(space)
    assert costs.known(adaptive) is None
    assert costs.values(adaptive, {"map50": 0.5}) == {}
    done = {"steps_per_prefix": {"0": 5, "4": 7}, "compute_ratio": 0.8}
    expected = (5 * 30 + 7 * 14) / (24 * 6 * 30)
    assert costs.values(adaptive, done) == {"compute_ratio": pytest.approx(expected)}


def test_seconds_are_of_what_was_timed() -> None:
    def of_stretch(part: Stretch) -> float:
        plain, cached = (5 - part.prefix) * 1.0, 0.2
        return part.steps * (part.hits * cached + (1 - part.hits) * plain)

    def seconds(config: Config) -> Callable[[Stretch], float] | None:
        return None if config.data.image_size == 64 else of_stretch

    space = settings()
    costs = Costs(space, "seconds_ratio", seconds)
    # rho 4 of 24 epochs of 6 steps: six spans of 3 frozen epochs, 18 steps each, without a hit
    assert costs.known(space.make(STEP)) == pytest.approx((6 * 5 + 18 * 1) / (24 * 5))
    frozen = costs.known(space.make({"freezing.policy": "frozen"}))  # one span of 144 steps, half of it hits
    assert frozen == pytest.approx((0.5 * 0.2 + 0.5 * 1.0) / 5)
    assert costs.known_as("compute_ratio", space.make(STEP)) == pytest.approx((6 * 30 + 18 * 14) / (24 * 30))
    assert costs.known(space.make({"data.image_size": 64})) is None
    assert Costs(space, "energy_joules").known(space.make(STEP)) is None, "only known afterwards"
    adaptive = space.make(PLATEAU)
    done = {"steps_per_prefix": {"0": 10, "4": 20}, "cache_hits": 30, "cache_misses": 90}
    expected = (10 * 5 + 20 * (0.25 * 0.2 + 0.75 * 1.0)) / (144 * 5)
    assert costs.values(adaptive, done)["seconds_ratio"] == pytest.approx(expected)
