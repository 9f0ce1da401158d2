"""The freezing scheduler: blocks, thawing, rebuilding, and resuming within a block."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from dbf_ray.detectors import BACKBONES, make_detector
from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Decision, Freezer, Horizon, Policy, make_policy
from dbf_ray.training.ddp import DynamicDDP
from dbf_ray.training.optim import make_optimizer, parameter_groups, set_learning_rate
from dbf_ray.training.scheduler import FreezingScheduler, Thaw
from dbf_ray.training.signals import Signal
from tests.detectors.narrow import NARROW


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "narrow", NARROW["narrow"])


class Script(Policy):
    """Prefixes as given, one a block; remembers what it was told."""

    name = "script"

    prefixes: list[int]
    asks: tuple[str, ...] = ()

    @property
    def needs_signals(self) -> tuple[str, ...]:
        return self.asks

    def decide(
        self, t: int, horizon: Horizon, signals: Any, state: dict[str, Any]
    ) -> tuple[Decision, dict[str, Any]]:
        heard = [*state.get("heard", []), dict(signals)]
        return Decision(self.prefixes[t]), {"heard": heard}


class Steps(Signal):
    """Counts what it is called for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self, frozen: int, frozen_before: int) -> None:
        self.calls = [f"begin {frozen} after {frozen_before}"]

    def on_gradients(self) -> None:
        self.calls.append("gradients")

    def on_optimizer_step(self) -> None:
        self.calls.append("updated")

    def value(self) -> list[str]:
        return list(self.calls)

    def state_dict(self) -> dict[str, Any]:
        return {"calls": list(self.calls)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = list(state["calls"])


class Setup:
    """A small detector with everything that a scheduler works on."""

    def __init__(
        self,
        policy: Policy,
        blocks: int,
        block_steps: int = 2,
        total: int | None = None,
        optimizer: str = "adamw",
        thaw: Thaw | None = None,
        costs: tuple[int, ...] | None = None,
        **detector: Any,
    ) -> None:
        torch.manual_seed(0)
        self.detector = make_detector(
            "rotated_retinanet", backbone="narrow", num_classes=2, fpn_channels=8, head_convs=0, **detector
        )
        stages = [list(stage.parameters()) for stage in self.detector.backbone.stages]
        self.optimizer = make_optimizer(optimizer, parameter_groups(self.detector, stages, 0.05), 1e-2)  # type: ignore[arg-type]
        self.ddp, self.signal = DynamicDDP(self.detector), Steps()
        horizon = Horizon(blocks, 4, block_steps=block_steps, total_steps=total, costs=costs)
        signals = dict.fromkeys(policy.needs_signals, self.signal)
        self.scheduler = FreezingScheduler(
            policy, horizon, Freezer(self.detector.backbone), self.ddp, self.optimizer, signals, thaw
        )

    def step(self, number: int) -> list[float]:
        """One optimizer step of the run, on images that depend on its number alone."""
        self.detector.train()
        factors = self.scheduler.before_step(number)
        set_learning_rate(self.optimizer, 1e-2, factors)
        images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(number))
        torch.stack([out.square().mean() for out in self.detector.dense_outputs(images)]).sum().backward()
        self.scheduler.on_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.on_optimizer_step()
        self.scheduler.after_step(number)
        return factors

    def states(self, stage: int) -> list[dict[str, Any]]:
        """The optimizer's states of a stage's parameters."""
        return [
            copy.deepcopy(self.optimizer.state.get(p, {}))
            for p in self.detector.backbone.stages[stage].parameters()
        ]

    def save(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "model": self.detector.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
            }
        )

    def load(self, saved: dict[str, Any]) -> None:
        self.detector.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])


def test_a_block_is_decided_once_and_held_for_all_its_steps() -> None:
    setup = Setup(Script(prefixes=[0, 4, 2]), 3, block_steps=3, total=8)
    seen = []
    for number in range(8):
        setup.step(number)
        seen.append(setup.scheduler.num_frozen)
    assert seen == [0, 0, 0, 4, 4, 4, 2, 2]
    assert setup.scheduler.state.prefixes == [0, 4, 2]


def test_ddp_is_rebuilt_only_when_what_is_trained_changes() -> None:
    setup = Setup(Script(prefixes=[0, 0, 4, 4, 4, 2, 2, 0]), 8, block_steps=1)
    rebuilds = []
    for number in range(8):
        setup.step(number)
        rebuilds.append(setup.ddp.rebuilds)
    assert rebuilds == [1, 1, 2, 2, 2, 3, 3, 4]


def test_always_frozen_stages_are_in_the_record_and_are_no_thaw() -> None:
    setup = Setup(Script(prefixes=[0, 4, 0]), 3, thaw=Thaw("reset", 4), frozen_stages=2)
    factors = [setup.step(number) for number in range(6)]
    assert setup.scheduler.state.prefixes == [2, 4, 2]
    assert [f[:2] for f in factors] == [[1.0, 1.0]] * 6
    assert factors[4][2] < factors[5][2] < 1


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("momentum", ["keep", "reset"])
def test_momentum_of_what_thaws_is_kept_or_reset(optimizer: str, momentum: str) -> None:
    setup = Setup(Script(prefixes=[0, 4, 4, 1]), 4, optimizer=optimizer, thaw=Thaw(momentum))  # type: ignore[arg-type]
    for number in range(6):
        setup.step(number)
    frozen = [setup.states(stage) for stage in range(4)]
    setup.scheduler.before_step(6)
    for stage in range(4):
        now = setup.states(stage)
        if stage >= 1 and momentum == "reset":
            assert all(state == {} for state in now)
        else:
            assert [state.keys() for state in now] == [state.keys() for state in frozen[stage]]
            assert all(
                torch.equal(a[key], b[key])
                for a, b in zip(now, frozen[stage], strict=True)
                for key in a
                if isinstance(a[key], torch.Tensor)
            )
    head = next(setup.detector.head.parameters())
    assert setup.optimizer.state[head]
    weights = setup.detector.backbone.stages[3][0].weight.detach().clone()
    setup.step(6)
    assert not torch.equal(weights, setup.detector.backbone.stages[3][0].weight)


def test_a_first_step_after_a_reset_is_that_of_a_new_optimizer() -> None:
    """AdamW's first step is lr times the sign of the gradient, plus decay."""
    setup = Setup(Script(prefixes=[0, 4, 0]), 3, thaw=Thaw("reset"))
    for number in range(4):
        setup.step(number)
    weight = setup.detector.backbone.stages[2][1].bias  # not decayed
    before = weight.detach().clone()
    setup.step(4)
    moved = (weight - before).abs()
    assert torch.allclose(moved[moved > 1e-4], torch.tensor(1e-2), rtol=1e-2)
    assert (moved > 1e-4).any()


def test_the_rate_warms_up_again_after_a_long_frozen_span_only() -> None:
    thaw = Thaw("keep", rewarm_steps=4, rewarm_after=2, rewarm_factor=0.2)
    setup = Setup(Script(prefixes=[0, 4, 0, 4, 4, 0, 1, 0]), 8, thaw=thaw)
    factors = [setup.step(number) for number in range(16)]
    assert factors[:4] == [[1.0] * 4] * 4
    assert factors[4:6] == [[1.0] * 4] * 2  # frozen for one block only
    for number, expected in zip(range(10, 14), (0.2, 0.4, 0.6, 0.8), strict=True):
        assert factors[number][3] == pytest.approx(expected)
    # the first stage's was cut off after two steps, and goes on
    assert factors[14] == pytest.approx([0.6, 1, 1, 1])
    # frozen from the beginning counts
    first = Setup(make_policy("warmup_step", warmup=2, rho=1), 3, thaw=thaw)
    assert [first.step(number)[0] for number in range(6)] == pytest.approx([1, 1, 1, 1, 0.2, 0.4])


def test_a_warm_up_that_a_short_span_cuts_off_goes_on() -> None:
    setup = Setup(
        Script(prefixes=[4, 4, 0, 4, 0, 0]),
        6,
        thaw=Thaw("keep", rewarm_steps=4, rewarm_after=2, rewarm_factor=0.2),
    )
    factors = [setup.step(number)[0] for number in range(12)]
    assert factors[4:6] == pytest.approx([0.2, 0.4])
    assert factors[8:] == pytest.approx([0.6, 0.8, 1, 1])


def test_signals_are_heard_at_the_next_decision() -> None:
    setup = Setup(Script(prefixes=[0, 4, 2], asks=("steps",)), 3)
    for number in range(6):
        setup.step(number)
    heard = setup.scheduler.state.policy["heard"]
    assert heard[0] == {"steps": None}
    assert heard[1] == {"steps": ["begin 0 after 4", "gradients", "updated", "gradients", "updated"]}
    assert heard[2] == {"steps": ["begin 4 after 0", "gradients", "updated", "gradients", "updated"]}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("stop", range(1, 9))
def test_resumed_at_any_step_it_goes_on_bit_for_bit(stop: int, optimizer: str) -> None:
    def make() -> Setup:
        policy = Script(prefixes=[0, 4, 1], asks=("steps",))
        return Setup(policy, 3, block_steps=3, optimizer=optimizer, thaw=Thaw("reset", 3), norm_eval=False)

    straight = make()
    for number in range(9):
        straight.step(number)
    first, second = make(), make()
    for number in range(stop):
        first.step(number)
    second.load(first.save())
    for number in range(stop, 9):
        second.step(number)
    one, two = straight.save(), second.save()
    assert one["scheduler"]["state"] == two["scheduler"]["state"]
    assert one["scheduler"]["signals"] == two["scheduler"]["signals"]
    assert all(torch.equal(tensor, two["model"][name]) for name, tensor in one["model"].items())
    assert straight.scheduler.num_frozen == second.scheduler.num_frozen == 1


COSINE = {"name": "cosine", "start": 1.0, "end": 0.6}


def test_what_a_policy_remembers_is_replayed_and_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget over a cosine goes on from the cosine's own state, which knows of nothing spent."""

    def budget() -> Setup:
        policy = make_policy("budget", limit=0.75, inner=COSINE)
        return Setup(policy, 6, costs=(10, 9, 8, 7, 5))

    other, straight = Setup(make_policy(**COSINE), 6), budget()
    for number in range(4):
        other.step(number)
    states = []
    for number in range(12):
        straight.step(number)
        states.append(copy.deepcopy(straight.scheduler.state))
    assert straight.scheduler.state.prefixes == [0, 0, 0, 4, 4, 4]
    forked = budget()
    forked.load(other.save())
    assert forked.scheduler.state == states[3] != other.scheduler.state
    for number in range(4, 12):
        forked.step(number)
        assert forked.scheduler.state == states[number]
    monkeypatch.setattr(FreezingScheduler, "_replay", lambda self: None)
    trusting = budget()
    trusting.load(other.save())
    for number in range(4, 12):
        trusting.step(number)
    assert trusting.scheduler.state.prefixes == [0, 0, 0, 0, 4, 0]  # another schedule, without a word


@pytest.mark.parametrize("stop", range(1, 9))
def test_rates_of_stages_go_on_within_a_block(stop: int) -> None:
    straight, first, second = (Setup(make_policy("layer_decay", xi=0.5), 3, block_steps=3) for _ in range(3))
    factors = [straight.step(number) for number in range(9)]
    for number in range(stop):
        first.step(number)
    second.load(first.save())
    assert [second.step(number) for number in range(stop, 9)] == factors[stop:]


def test_a_state_of_another_schedule_is_refused() -> None:
    other, own = (Setup(make_policy("step", rho=rho), 6) for rho in (2, 3))
    for number in range(6):
        other.step(number)
    with pytest.raises(ConfigError, match=r"that it goes on from, \[0, 4, 0\], got \[0, 4, 4\]; go on with"):
        own.load(other.save())


def test_a_policy_that_cannot_serve_the_run_is_refused_before_it() -> None:
    with pytest.raises(ConfigError, match=r"budget must be at most .* 3, got 4"):
        Setup(make_policy("random_budget", budget=4), 3)


@pytest.mark.parametrize(
    ("prefixes", "always", "blocks_an_epoch", "orientations"),
    [
        ([0, 4, 4, 4, 0, 4], 0, 1, [0, 1, 1, 1, 4, 5]),
        ([4, 4, 4], 0, 1, [0, 0, 0]),
        ([0, 4, 2, 2, 4], 0, 1, [0, 1, 2, 2, 4]),
        ([1, 1, 4, 4, 1, 1], 1, 1, [0, 1, 2, 2, 4, 5]),
        (
            [0, 4, 4, 4, 4, 0],
            0,
            2,
            [0, 1, 1],
        ),  # for a span that begins within an epoch they are drawn at the next one's begin
        ([4, 4, 0, 4, 4, 4, 4, 4], 0, 2, [0, 1, 2, 2]),
        ([4, 0, 4] * 4, 0, 3, [0, 1, 2, 3]),  # every epoch begins in a span that began in the epoch before
    ],
)
def test_orientations_are_drawn_anew_where_a_frozen_span_begins(
    prefixes: list[int], always: int, blocks_an_epoch: int, orientations: list[int]
) -> None:
    steps = 2  # of a block
    setup = Setup(Script(prefixes=prefixes), len(prefixes), steps, frozen_stages=always)
    seen = []
    for step in range(steps * len(prefixes)):
        setup.scheduler.before_step(step)
        if step % (steps * blocks_an_epoch) == 0:
            seen.append(setup.scheduler.orientations_of(step // (steps * blocks_an_epoch)))
        setup.scheduler.after_step(step)
        # an epoch's end: go on from a checkpoint
        if step % (steps * blocks_an_epoch) == steps * blocks_an_epoch - 1:
            state = copy.deepcopy(setup.scheduler.state_dict())
            setup = Setup(Script(prefixes=prefixes), len(prefixes), steps, frozen_stages=always)
            setup.scheduler.load_state_dict(state)
    assert seen == orientations
