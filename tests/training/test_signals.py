"""What adaptive policies are told, against closed forms and slow sums."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dbf_ray.cost import FlopTable, Ledger
from dbf_ray.detectors import BACKBONES, Detector, make_detector
from dbf_ray.freezing import POLICIES, Freezer, make_policy
from dbf_ray.freezing.cka import linear_cka
from dbf_ray.training.signals import (
    SIGNALS,
    EffectivePerturbation,
    FeatureDrift,
    GradientNorms,
    Score,
    Sources,
)
from tests.detectors.narrow import NARROW


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, row in NARROW.items():
        monkeypatch.setitem(BACKBONES, name, row)


def sources(images: int = 5) -> Sources:
    detector = make_detector(
        "rotated_retinanet", backbone="narrow", num_classes=2, fpn_channels=8, head_convs=0
    )
    pictures = [torch.randint(0, 255, (3, 40, 50 + i), dtype=torch.uint8) for i in range(images)]
    return Sources(detector, Ledger(detector), lambda: pictures, (64, 64), 2)


def backward(detector: Detector) -> None:
    detector.zero_grad(set_to_none=True)
    images = torch.randn(2, 3, 64, 64)
    sum(out.square().mean() for out in detector.dense_outputs(images)).backward()  # type: ignore[union-attr]


def test_every_signal_that_a_policy_asks_for_is_measured() -> None:
    asked = set()
    for name, parameters in (
        ("gradnorm", {"percentile": 50, "window": 1, "recheck": 2}),
        ("aimd", {"threshold": 0.5, "max_rho": 4}),
        ("drift", {"low": 0.1, "high": 0.2, "recheck": 2}),
        ("plateau", {"patience": 1, "min_delta": 0.1}),
    ):
        asked |= set(make_policy(name, **parameters).needs_signals)
    assert asked == set(SIGNALS)
    assert {"gradnorm", "aimd", "drift", "plateau"} <= set(POLICIES)


def test_gradient_norms_are_means_over_steps_and_leave_frozen_stages_out() -> None:
    source = sources()
    detector, signal = source.detector, GradientNorms(source)
    freezer = Freezer(detector.backbone)
    freezer.apply(1)
    signal.begin(1, 4)
    expected = [0.0] * 4
    for _ in range(3):
        backward(detector)
        signal.on_gradients()
        for k, stage in enumerate(detector.backbone.stages):
            expected[k] += (
                math.sqrt(
                    sum(
                        float(g) ** 2
                        for p in stage.parameters()
                        if p.grad is not None
                        for g in p.grad.flatten()
                    )
                )
                / 3
            )
    value = signal.value()
    assert value is not None
    assert value[0] is None
    assert value[1:] == pytest.approx(expected[1:], rel=1e-5)
    assert all(norm > 0 for norm in value[1:])
    freezer.apply(4)
    signal.begin(4, 1)
    backward(detector)
    signal.on_gradients()
    assert signal.value() is None


def walk(signal: EffectivePerturbation, parameter: nn.Parameter, steps: list[Tensor]) -> float | None:
    signal.begin(0, 4)
    for step in steps:
        with torch.no_grad():
            parameter += step
        signal.on_optimizer_step()
    return signal.value()


def test_the_effective_perturbation_has_its_closed_forms() -> None:
    source = sources()
    signal, parameter = EffectivePerturbation(source), next(source.detector.backbone.stages[1].parameters())
    one = torch.zeros_like(parameter)
    one.view(-1)[0] = 1.0
    other = torch.zeros_like(parameter)
    other.view(-1)[1] = 1.0
    assert walk(signal, parameter, [one, one, 2 * one]) == pytest.approx(1, rel=1e-5)  # straight on
    assert walk(signal, parameter, [one, -one, one, -one]) == pytest.approx(0, abs=1e-5)  # to and fro
    assert walk(signal, parameter, [3 * one, 4 * other]) == pytest.approx(5 / 7, rel=1e-5)  # around a corner
    assert walk(signal, parameter, [0 * one]) == 0  # nothing moved
    head = next(source.detector.head.parameters())
    signal.begin(0, 4)
    with torch.no_grad():
        head += 1
    signal.on_optimizer_step()
    assert signal.value() == 0  # only the backbone counts
    Freezer(source.detector.backbone).apply(4)
    assert walk(signal, head, [torch.ones_like(head)]) is None


def test_a_checkpoint_within_a_block_loses_nothing() -> None:
    source = sources()
    parameter = next(source.detector.backbone.stages[1].parameters())
    steps = [torch.randn_like(parameter) for _ in range(6)]
    begin = parameter.detach().clone()
    straight = walk(EffectivePerturbation(source), parameter, steps)
    with torch.no_grad():
        parameter.copy_(begin)
    first = EffectivePerturbation(source)
    first.begin(0, 4)
    for index, step in enumerate(steps):
        if index == 3:
            second = EffectivePerturbation(source)
            second.load_state_dict(first.state_dict())
            first = second
        with torch.no_grad():
            parameter += step
        first.on_optimizer_step()
    assert first.value() == straight
    norms, again = GradientNorms(source), GradientNorms(source)
    norms.begin(0, 4)
    backward(source.detector)
    norms.on_gradients()
    again.load_state_dict(norms.state_dict())
    assert again.value() == norms.value()


def test_feature_drift_compares_with_the_last_unfreezing_and_is_paid_for() -> None:
    source = sources()
    detector, signal = source.detector, FeatureDrift(source)
    detector.train()
    modes = [module.training for module in detector.modules()]
    signal.begin(0, 4)
    assert signal.value() == pytest.approx(0, abs=1e-12)
    assert [module.training for module in detector.modules()] == modes
    before = signal._features()
    assert before.shape == (5 * 16, 16)
    with torch.no_grad():
        for p in detector.backbone.parameters():
            p += 0.1 * torch.randn_like(p)
    moved = signal.value()
    assert moved == pytest.approx(1 - linear_cka(before, signal._features()), abs=1e-12)
    assert moved is not None
    assert moved > 1e-4
    signal.begin(0, 0)  # goes on unfrozen: the reference stays
    assert signal.value() == moved
    signal.begin(4, 0)
    assert signal.value() is None
    signal.begin(0, 4)  # unfrozen anew: another reference
    assert signal.value() == pytest.approx(0, abs=1e-12)
    again = FeatureDrift(source)
    again.load_state_dict(signal.state_dict())
    assert again.value() == signal.value()
    # Five images at each of: two begins that take a reference, two looks of this test, and six values;
    # nothing but the backbone's forward.
    spent = source.ledger.end_epoch()["executed_flops"]
    assert spent == (2 + 2 + 6) * 5 * FlopTable(detector).backbone_forward(64, 64)


def test_the_score_is_the_last_of_its_block() -> None:
    signal = Score(sources())
    signal.begin(4, 4)
    assert signal.value() is None
    signal.on_evaluation({"map50": 0.1})
    signal.on_evaluation({"map50": 0.3})
    assert signal.value() == 0.3
    again = Score(sources())
    again.load_state_dict(signal.state_dict())
    assert again.value() == 0.3
    signal.begin(4, 4)
    assert signal.value() is None
    assert not Score.complete_at_end
