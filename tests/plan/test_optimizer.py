"""Rules of learning rate, epochs and warm-up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.plan.rules.optimizer import epochs, largest_batch, learning_rate, warmup_steps


@pytest.mark.parametrize(
    ("optimizer", "batch", "two_stages", "wanted"),
    [
        ("sgd", 2, False, 0.0025),
        ("sgd", 2, True, 0.005),
        ("sgd", 8, False, 0.01),
        ("sgd", 64, False, 0.01),  # four times at most
        ("sgd", 1, False, 0.0013),
        ("adamw", 4, False, 4e-4),
        ("adamw", 16, True, 8e-4),
        ("adamw", 1, False, 2e-4),
        ("adamw", 1000, False, 1.6e-3),
    ],
)
def test_the_learning_rate_follows_the_batch(optimizer, batch, two_stages, wanted) -> None:
    assert learning_rate(optimizer, batch, two_stages) == pytest.approx(wanted)


def test_there_are_epochs_for_enough_steps() -> None:
    assert [epochs(steps) for steps in (125, 126, 1000, 10, 5, 1, 0)] == [12, 12, 12, 150, 300, 300, 300]


@given(st.integers(0, 10**6))
def test_a_warm_up_is_short(steps: int) -> None:
    assert 0 <= warmup_steps(steps) <= min(500, 0.05 * steps + 0.5)


@given(st.integers(0, 10**6))
def test_a_batch_is_no_more_than_a_quarter_of_the_images(images: int) -> None:
    assert 1 <= largest_batch(images) <= max(1, images / 4)
