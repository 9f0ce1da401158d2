"""When two trials would train the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.config import Config, with_overrides
from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Horizon, make_policy
from dbf_ray.search.settings import Beginning, Settings
from tests.search.begins import four_stages

EPOCHS = 8


def key(always_frozen: int = 0, **overrides) -> str:
    config = with_overrides(Config(), {"training.epochs": EPOCHS})
    settings = Settings(config, lambda config: four_stages(config, always_frozen))
    return settings.make({name.replace("__", "."): value for name, value in overrides.items()}).key


def step(rho: int, **more) -> str:
    return key(freezing__policy="step", freezing__rho=rho, **more)


def test_periods_longer_than_the_training_are_one_setting():
    assert step(10) == step(12) == step(EPOCHS)
    assert step(EPOCHS) != step(EPOCHS - 1)


def test_a_period_of_one_is_full_fine_tuning():
    assert step(1) == key(freezing__policy="full")
    assert step(2) != key(freezing__policy="full")


def test_what_shapes_the_training_makes_another_setting_and_places_do_not():
    base = step(3)
    assert step(3, training__lr=1e-3) != base
    assert step(3, seed=1) != base
    assert step(3, data__image_size=256) != base
    assert step(3, name="other", runs_dir="/elsewhere", cluster__workers=2, tracking__mlflow=False) == base


def test_stages_that_are_always_frozen_count():
    frozen = {"freezing__policy": "frozen"}
    assert key(always_frozen=4, **frozen) == key(always_frozen=4, freezing__policy="full")
    assert key(always_frozen=3, **frozen) != key(always_frozen=3, freezing__policy="full")


@given(
    first=st.integers(1, 20),
    second=st.integers(1, 20),
    phases=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_keys_are_equal_exactly_when_the_timelines_are(first, second, phases):
    pairs = [
        {"rho": rho, "phase": min(phase, rho - 1)} for rho, phase in zip((first, second), phases, strict=True)
    ]
    timelines = [make_policy("step", **pair).decisions(EPOCHS, 4) for pair in pairs]
    keys = [
        key(freezing__policy="step", freezing__rho=pair["rho"], freezing__phase=pair["phase"])
        for pair in pairs
    ]
    assert (keys[0] == keys[1]) == (timelines[0] == timelines[1])


def test_the_detector_is_asked_once_for_its_stages():
    asked = []
    settings = Settings(
        Config(), lambda config: asked.append(config.detector.backbone) or four_stages(config)
    )
    for rho in (2, 3, 4):
        settings.make({"freezing.policy": "step", "freezing.rho": rho, "training.lr": rho * 1e-4})
    settings.make({"freezing.policy": "full", "detector.backbone": "resnet18"})
    assert asked == ["mobilenet_v2", "resnet18"]


def test_how_often_a_policy_is_asked_makes_no_difference_where_the_timeline_is_the_same():
    pairs = {"freezing.interval": {"unit": "epochs", "every": 2}}
    run = Horizon(EPOCHS // 2, 4, block_steps=2, total_steps=EPOCHS)

    def key_of(begin, **overrides):
        return Settings(with_overrides(Config(), {"training.epochs": EPOCHS}), begin).make(overrides).key

    front = key_of(
        lambda _: Beginning(run, {}), **{"freezing.policy": "front", "freezing.budget": 2, **pairs}
    )
    assert front == key_of(four_stages, **{"freezing.policy": "front", "freezing.budget": 4})


def test_what_happens_on_thawing_counts_where_something_thaws():
    assert key(freezing__policy="full", freezing__rewarm_steps=5) == key(freezing__policy="full")
    assert key(freezing__policy="frozen", freezing__momentum="reset") != key(freezing__policy="full")
    assert step(3, freezing__momentum="reset") != step(3)
    assert key(freezing__policy="back", freezing__budget=2, freezing__rewarm_steps=5) != key(
        freezing__policy="back", freezing__budget=2
    )
    assert key(freezing__policy="front", freezing__budget=2, freezing__rewarm_steps=5) == key(
        freezing__policy="front", freezing__budget=2
    )


def test_a_policy_that_cannot_serve_the_run_is_refused_before_a_trial():
    costs = (10, 9, 8, 7, 6)
    config = with_overrides(Config(), {"training.epochs": EPOCHS})
    settings = Settings(config, lambda config: four_stages(config, costs=costs))
    inner = {"name": "aimd", "threshold": 0.5, "max_rho": 4}
    with pytest.raises(ConfigError, match=r"limit must be >= 0.6, .* got 0.1"):
        settings.make({"freezing.policy": "budget", "freezing.limit": 0.1, "freezing.inner": inner})
    settings.make({"freezing.policy": "budget", "freezing.limit": 0.7, "freezing.inner": inner})
