"""Policies in a loop of one's own: every member of the family, resumed at every epoch; what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Decision, Freezer, FreezingSchedule, Policy, make_policy
from tests.freezing.policy_members import MEMBERS, Member, costs_of

PLATEAU = {"patience": 1, "min_delta": 0.1}
EXAMPLES = [
    pytest.param(member, *example, *[None] * (5 - len(example)), id=f"{member.name}-{number}")
    for member in MEMBERS
    for number, example in enumerate(member.examples)
]


def net(stages: int = 3) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(stages + 1)))


def schedule_of(
    name: str, parameters: dict[str, Any], epochs: int = 8, stages: int = 3, **options: Any
) -> tuple[FreezingSchedule, torch.optim.Optimizer]:
    """With all that any policy may need, unless it is taken away."""
    freezer = Freezer.of(net(stages), [str(stage) for stage in range(stages)])
    optimizer = torch.optim.SGD(freezer.parameter_groups(), lr=0.1)
    policy = make_policy(name, **parameters)
    given = {"costs": costs_of(stages), "signals": policy.needs_signals, "optimizer": optimizer}
    return FreezingSchedule(policy, freezer, epochs, **{**given, **options}), optimizer


@pytest.mark.parametrize(("member", "parameters", "epochs", "stages", "timeline", "trace"), EXAMPLES)
def test_every_policy_freezes_as_it_decides_and_resumes_anywhere(
    member: Member,
    parameters: dict[str, Any],
    epochs: int,
    stages: int,
    timeline: list[int],
    trace: list[Any] | None,
) -> None:
    schedule, _ = schedule_of(member.name, parameters, epochs, stages)
    before = 0
    for epoch, frozen in enumerate(timeline):
        assert schedule.begin_epoch(epoch) is (frozen != before)
        assert schedule.begin_epoch(epoch) is False
        assert schedule.num_frozen == schedule.freezer.num_frozen == frozen
        value = None if trace is None else member.observed(trace[epoch], frozen, stages)
        schedule.report(**dict.fromkeys(schedule.policy.needs_signals, value))
        if epoch + 1 < epochs:
            for next_epoch in (epoch, epoch + 1):  # within an epoch, or after it
                resumed, _ = schedule_of(member.name, parameters, epochs, stages)
                resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
                assert resumed.begin_epoch(next_epoch) is (timeline[next_epoch] > 0)
                assert resumed.num_frozen == timeline[next_epoch]
                assert resumed.lr_factors == schedule.lr_factors
        before = frozen


def test_epochs_are_begun_one_after_the_other() -> None:
    schedule, _ = schedule_of("step", {"rho": 2}, epochs=3)
    for wrong in (-1, 3, 1.0, None):
        with pytest.raises(ConfigError, match=rf"epoch must be an integer in 0\.\.2, got {wrong}"):
            schedule.begin_epoch(wrong)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match="one after the other, the next is 0, got 1; a run that resumes loads"
    ):
        schedule.begin_epoch(1)
    schedule.begin_epoch(0)
    schedule.begin_epoch(1)
    with pytest.raises(ConfigError, match="the next is 2, got 0"):
        schedule.begin_epoch(0)
    assert (schedule.epoch, schedule.num_frozen) == (1, 3)


def test_what_is_reported_reaches_the_policy_and_must_be() -> None:
    schedule, _ = schedule_of("plateau", PLATEAU)
    schedule.begin_epoch(0)
    schedule.report(map50=torch.tensor(0.25), loss=1.0)
    assert schedule.state_dict()["reported"] == {"map50": 0.25}  # nothing that it does not ask for
    schedule.begin_epoch(1)
    with pytest.raises(
        ConfigError, match=r"decides by map50 of epoch 1, which was not reported; call report\(map50"
    ):
        schedule.begin_epoch(2)
    schedule.report(map50=None)
    assert schedule.begin_epoch(2) is False


@pytest.mark.parametrize(
    ("name", "parameters", "missing", "message"),
    [
        (
            "plateau",
            PLATEAU,
            "signals",
            r"decides by map50; say by signals=\['map50'\] that you will report it",
        ),
        (
            "budget",
            {"limit": 0.9, "inner": {"name": "full"}},
            "costs",
            r"counts costs; give costs=\[\.\.\.\]",
        ),
        (
            "lr_scale",
            {"factor": 0.5},
            "optimizer",
            r"give optimizer=\.\.\., made of freezer\.parameter_groups",
        ),
        (
            "budget",
            {"limit": 0.9, "inner": {"name": "layer_decay", "xi": 0.5}},
            "optimizer",
            "give optimizer=",
        ),
    ],
)
def test_a_policy_without_what_it_needs_is_refused_when_the_schedule_is_made(
    name: str, parameters: dict[str, Any], missing: str, message: str
) -> None:
    schedule_of(name, parameters)
    with pytest.raises(ConfigError, match=message):
        schedule_of(name, parameters, **{missing: () if missing == "signals" else None})


def test_values_that_cannot_serve_are_refused() -> None:
    with pytest.raises(ConfigError, match="epochs must be an integer >= 1, got 0"):
        schedule_of("step", {"rho": 2}, epochs=0)
    with pytest.raises(ConfigError, match="costs must be 4 numbers > 0"):
        schedule_of("step", {"rho": 2}, costs=[2.0, 1.0])


def test_a_state_of_something_else_is_refused() -> None:
    state = schedule_of("step", {"rho": 2}, seed=1)[0].state_dict()
    for key, rho, others in (
        ("policy", 3, {"seed": 1}),
        ("seed", 2, {"seed": 2}),
        ("num_stages", 2, {"seed": 1, "stages": 4}),
    ):
        with pytest.raises(ConfigError, match=f"must resume with the {key} it began with"):
            schedule_of("step", {"rho": rho}, **others)[0].load_state_dict(state)
    with pytest.raises(ConfigError, match="with the policy it began with, None, got"):
        schedule_of("step", {"rho": 2})[0].load_state_dict({"model": 1})


def test_a_training_may_become_longer_where_that_leaves_its_past_as_it_was() -> None:
    short, _ = schedule_of("step", {"rho": 2}, epochs=4)
    for epoch in range(3):
        short.begin_epoch(epoch)
    longer, _ = schedule_of("step", {"rho": 2}, epochs=40)
    longer.load_state_dict(short.state_dict())
    assert longer.begin_epoch(3)
    back, _ = schedule_of("back", {"budget": 2}, epochs=4)  # trained in the last two epochs
    for epoch in range(3):
        back.begin_epoch(epoch)
    with pytest.raises(ConfigError, match=r"with the epochs it began with, 4, got 40: policy back would"):
        schedule_of("back", {"budget": 2}, epochs=40)[0].load_state_dict(back.state_dict())


def test_a_stage_of_which_a_part_is_never_trained_has_a_rate_of_its_own_all_the_same() -> None:
    model = net()
    next(model.parameters()).requires_grad_(False)
    freezer = Freezer.of(model, ["0", "1", "2"])
    optimizer = torch.optim.SGD(freezer.parameter_groups())
    schedule = FreezingSchedule(make_policy("lr_scale", factor=0.5), freezer, 2, optimizer=optimizer)
    assert not schedule.begin_epoch(0)
    assert schedule.lr_factors == (0.5, 0.5, 0.5)


def test_stages_are_stepped_at_rates_of_their_own_whatever_else_sets_rates() -> None:
    schedule, optimizer = schedule_of("layer_decay", {"xi": 0.5})
    FreezingSchedule(schedule.policy, schedule.freezer, 8, optimizer=optimizer)  # the last one counts ...
    schedule = FreezingSchedule(schedule.policy, schedule.freezer, 8, optimizer=optimizer)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    for epoch in range(3):
        schedule.begin_epoch(epoch)
        assert schedule.lr_factors == (0.25, 0.5, 1.0)  # ... and only once
        parameters = [group["params"][0] for group in optimizer.param_groups]
        before = [p.detach().clone() for p in parameters]
        for p in parameters:
            p.grad = torch.ones_like(p)
        optimizer.step()
        steps = [float((old - p.detach()).mean()) for old, p in zip(before, parameters, strict=True)]
        assert steps == pytest.approx([0.1 / (1 + epoch) * factor for factor in (0.25, 0.5, 1, 1)], rel=1e-4)
        assert {group["lr"] for group in optimizer.param_groups} == {0.1 / (1 + epoch)}
        rates.step()


def test_an_optimizer_that_does_not_serve_is_refused() -> None:
    freezer = Freezer.of(net(), ["0", "1", "2"])
    everything = [p for stage in freezer.stage_parameters for p in stage]
    lacking = torch.optim.SGD([p for p in everything if p is not freezer.stage_parameters[1][0]])
    with pytest.raises(ConfigError, match="of stage 2 1 of 2 are in none; make it of all parameters"):
        FreezingSchedule(make_policy("full"), freezer, 2, optimizer=lacking)
    whole = torch.optim.SGD(everything)
    FreezingSchedule(make_policy("full"), freezer, 2, optimizer=whole)
    with pytest.raises(
        ConfigError, match=r"group 0 has parameters of stage 1, stage 2, stage 3; use freezer\.param"
    ):
        FreezingSchedule(make_policy("lr_scale", factor=0.5), freezer, 2, optimizer=whole)


class SlowFirst(Policy):
    """Hears of mAP, and gives stages rates of their own from epoch 1 on."""

    name = "slow_first"
    needs_signals = ("map50",)

    def decide(self, t: int, horizon: Any, signals: Any, state: Any) -> tuple[Decision, dict[str, Any]]:
        return Decision(0, (0.1, 1.0, 1.0) if t else None), {}


@pytest.mark.parametrize("given", ["one group", "nothing"])
def test_rates_that_a_signal_calls_for_need_groups_by_stage(given: str) -> None:
    freezer = Freezer.of(net(), ["0", "1", "2"])
    whole = torch.optim.SGD([p for stage in freezer.stage_parameters for p in stage])
    schedule = FreezingSchedule(
        SlowFirst(), freezer, 2, signals=["map50"], optimizer=whole if given == "one group" else None
    )
    schedule.begin_epoch(0)
    schedule.report(map50=0.5)
    for _ in range(2):
        with pytest.raises(
            ConfigError, match="group 0 has parameters" if given == "one group" else "give opt"
        ):
            schedule.begin_epoch(1)


def test_a_group_without_parameters_is_stepped() -> None:
    freezer = Freezer.of(net(), ["0", "1", "2"])
    optimizer = torch.optim.SGD([*freezer.parameter_groups(), {"params": []}], lr=0.1)
    FreezingSchedule(make_policy("lr_scale", factor=0.5), freezer, 2, optimizer=optimizer).begin_epoch(0)
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1] * 5
