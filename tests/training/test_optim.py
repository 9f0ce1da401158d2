"""Learning rates against closed forms; groups of parameters."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dbf_ray.errors import ConfigError
from dbf_ray.training.optim import LearningRate, make_optimizer, parameter_groups, set_learning_rate

STEPS = 10  # steps per epoch


def test_the_constant_schedule() -> None:
    rate = LearningRate(base=0.3, epochs=4)
    assert {rate.at(step, STEPS) for step in range(4 * STEPS)} == {0.3}


def test_the_step_schedule_falls_at_the_first_step_of_each_milestone() -> None:
    rate = LearningRate(base=0.4, schedule="step", epochs=12, milestones=(8, 11), gamma=0.1)
    expected = [0.4] * 80 + [0.04] * 30 + [0.004] * 10
    assert [rate.at(step, STEPS) for step in range(120)] == pytest.approx(expected)


def test_milestones_after_the_end_never_come() -> None:
    rate = LearningRate(base=1.0, schedule="step", epochs=3, milestones=(8, 11))
    assert {rate.at(step, STEPS) for step in range(30)} == {1.0}


def test_the_cosine_schedule_is_torchs() -> None:
    """Witness: torch's CosineAnnealingLR with T_max = the last step; and the closed form at its ends and
    middle.
    """
    rate = LearningRate(base=0.2, schedule="cosine", epochs=5, final_factor=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5 * STEPS - 1, eta_min=0.02)
    for step in range(5 * STEPS):
        assert rate.at(step, STEPS) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        scheduler.step()
    odd = LearningRate(base=0.2, schedule="cosine", epochs=1, final_factor=0.1)
    assert [odd.at(step, 11) for step in (0, 5, 10)] == pytest.approx([0.2, (0.2 + 0.02) / 2, 0.02])


@given(st.integers(1, 40), st.floats(0.01, 1.0), st.sampled_from(["constant", "step", "cosine"]))
def test_warm_up_is_a_line_up_to_the_schedule(steps: int, factor: float, schedule: Any) -> None:
    settings: dict[str, Any] = {"base": 0.5, "schedule": schedule, "epochs": 6, "milestones": (2, 4)}
    warmed, plain = (
        LearningRate(**settings, warmup_steps=steps, warmup_factor=factor),
        LearningRate(**settings),
    )
    for step in range(6 * STEPS):
        share = factor + (1 - factor) * min(step / steps, 1.0)
        assert warmed.at(step, STEPS) == pytest.approx(share * plain.at(step, STEPS))
    assert warmed.at(0, STEPS) == pytest.approx(0.5 * factor)


@given(st.sampled_from(["constant", "step", "cosine"]), st.integers(1, 8), st.integers(1, 20))
def test_rates_are_positive_finite_and_fall_after_warm_up(schedule: Any, epochs: int, steps: int) -> None:
    rate = LearningRate(
        base=1.0, schedule=schedule, epochs=epochs, milestones=(2, 5), final_factor=0.01, warmup_steps=3
    )
    rates = [rate.at(step, steps) for step in range(epochs * steps)]
    assert all(math.isfinite(value) and 0 < value <= 1 for value in rates)
    assert all(a >= b for a, b in itertools.pairwise(rates[3:]))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(3))
        self.head = nn.Sequential(nn.Conv2d(3, 2, 1), nn.GroupNorm(1, 2))


@pytest.fixture
def toy() -> Toy:
    return Toy()


def groups_of(toy: Toy) -> list[dict[str, Any]]:
    return parameter_groups(
        toy, [list(stage.parameters()) for stage in toy.stages], weight_decay=0.05, backbone_lr_factor=0.1
    )


def test_every_parameter_is_in_one_group_with_its_decay_stage_and_factor(toy: Toy) -> None:
    found = {id(p): group for group in groups_of(toy) for p in group["params"]}
    assert sum(len(group["params"]) for group in groups_of(toy)) == len(found) == len(list(toy.parameters()))
    for name, parameter in toy.named_parameters():
        group = found[id(parameter)]
        is_weight = name.endswith("0.weight")  # of a convolution; all others are norms and biases
        assert group["weight_decay"] == (0.05 if is_weight else 0.0), name
        in_stage = int(name.split(".")[1]) if name.startswith("stages") else -1
        assert group["stage"] == in_stage, name
        assert group["factor"] == (0.1 if in_stage >= 0 else 1.0), name


def test_freezing_does_not_change_the_groups(toy: Toy) -> None:
    def layout() -> list[tuple[int, float, list[int]]]:
        return [
            (group["stage"], group["weight_decay"], [id(p) for p in group["params"]])
            for group in groups_of(toy)
        ]

    before = layout()
    toy.stages[0].requires_grad_(False)
    assert layout() == before


def test_rates_of_stages(toy: Toy) -> None:
    optimizer = make_optimizer("sgd", groups_of(toy), lr=1.0)
    set_learning_rate(optimizer, 0.5)
    assert {(g["stage"], g["lr"]) for g in optimizer.param_groups} == {
        (-1, 0.5),
        (0, 0.05),
        (1, 0.05),
        (2, 0.05),
    }
    set_learning_rate(optimizer, 0.5, [0.0, 0.5, 2.0])
    rates = {g["stage"]: g["lr"] for g in optimizer.param_groups}
    assert rates == pytest.approx({-1: 0.5, 0: 0.0, 1: 0.025, 2: 0.1})


def test_decay_moves_weights_alone(toy: Toy) -> None:
    """One step without gradients: AdamW multiplies decayed parameters by 1 - lr * decay (arXiv 1711.05101)
    and leaves the rest.
    """
    before = {name: parameter.detach().clone() for name, parameter in toy.named_parameters()}
    optimizer = make_optimizer("adamw", groups_of(toy), lr=0.2)
    set_learning_rate(optimizer, 0.2)
    for parameter in toy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in toy.named_parameters():
        lr = 0.02 if name.startswith("stages") else 0.2
        factor = 1 - lr * 0.05 if name.endswith("0.weight") else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_optimizers_by_name(toy: Toy) -> None:
    sgd = make_optimizer("sgd", groups_of(toy), lr=0.1, momentum=0.8)
    assert isinstance(sgd, torch.optim.SGD)
    assert {g["momentum"] for g in sgd.param_groups} == {0.8}
    assert isinstance(make_optimizer("adamw", groups_of(toy), lr=0.1), torch.optim.AdamW)
    with pytest.raises(ConfigError, match="unknown optimizer 'lion'; known: sgd, adamw"):
        make_optimizer("lion", groups_of(toy), lr=0.1)  # type: ignore[arg-type]
