"""The freezer on a toy backbone, on every real one, and inside a real detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dbf_ray.detectors import make_detector
from dbf_ray.detectors.backbones import StagedBackbone, make_backbone
from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Freezer


class Toy(StagedBackbone):
    """Three stages with batch norm and dropout."""

    def __init__(self, **options: Any) -> None:
        stages = [
            nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU())
            for _ in range(3)
        ]
        super().__init__(stages, [4] * 3, [1] * 3, **{"norm_eval": False, **options})


def flags(backbone: StagedBackbone) -> list[bool]:
    """For each stage: is it trained (all of it, or nothing of it)."""
    result = []
    for stage in backbone.stages:
        states = {p.requires_grad for p in stage.parameters()} | {m.training for m in stage.modules()}
        assert len(states) == 1
        result.append(states.pop())
    return result


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: t.detach().clone()
        for name, t in {**dict(module.named_parameters()), **dict(module.named_buffers())}.items()
    }


def moved(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {name for name, t in bits(module).items() if not torch.equal(t, before[name])}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_prefixes_gives_the_state_of_the_last(prefixes: list[int], always: int) -> None:
    backbone = Toy(always_frozen=always)
    freezer = Freezer(backbone)
    assert (freezer.num_stages, freezer.always_frozen, freezer.num_frozen) == (3, always, 0)
    trained = 3
    for n in prefixes:
        effective = max(n, always)
        assert freezer.apply(n) is (3 - effective != trained)
        trained = 3 - effective
        assert freezer.num_frozen == backbone.num_frozen == effective
        assert flags(backbone) == [k >= effective for k in range(3)]
        before = [p.requires_grad for p in backbone.parameters()]
        assert freezer.apply(n) is False  # idempotent
        assert before == [p.requires_grad for p in backbone.parameters()]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_frozen_stages_stand_still_and_come_back_with_their_optimizer_state(
    optimizer: str, set_to_none: bool
) -> None:
    backbone, head = Toy(), nn.Conv2d(4, 1, 1)
    parameters = [*backbone.parameters(), *head.parameters()]
    make = {
        "sgd": lambda: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
        "adamw": lambda: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1),
    }[optimizer]
    update, freezer = make(), Freezer(backbone)

    def steps() -> None:
        backbone.train()
        for _ in range(3):
            head(backbone(torch.randn(2, 4, 8, 8))[-1]).square().mean().backward()
            update.step()
            update.zero_grad(set_to_none=set_to_none)

    steps()
    for n in (3, 1, 0, 2):
        freezer.apply(n)
        before = bits(backbone)
        states = {
            id(p): {k: v.clone() for k, v in state.items() if isinstance(v, Tensor)}
            for p, state in update.state.items()
        }
        steps()
        assert moved(before, backbone) == {name for name in before if int(name.split(".")[1]) >= n}
        for number, stage in enumerate(backbone.stages):
            for p in stage.parameters():
                same = all(
                    torch.equal(value, states[id(p)][key])
                    for key, value in update.state[p].items()
                    if isinstance(value, Tensor)
                )
                assert same is (number < n)
        assert all(p.grad is None for stage in backbone.stages[:n] for p in stage.parameters())
    assert len(update.state) == len(parameters)


def test_gradients_of_frozen_stages_are_dropped_at_once_and_others_kept() -> None:
    backbone = Toy()
    backbone(torch.randn(2, 4, 8, 8))[-1].sum().backward()
    Freezer(backbone).apply(2)
    assert [all(p.grad is None for p in stage.parameters()) for stage in backbone.stages] == [
        True,
        True,
        False,
    ]


def test_train_never_undoes_a_freeze_and_eval_stays_eval() -> None:
    backbone = Toy()
    freezer = Freezer(backbone)
    freezer.apply(2)
    for _ in range(2):
        assert flags(backbone.train()) == [False, False, True]  # type: ignore[arg-type]
    backbone.eval()
    freezer.apply(1)
    assert not any(m.training for m in backbone.modules())
    assert [p.requires_grad for p in backbone.stages[1].parameters()] == [True] * 4


def test_a_frozen_prefix_saves_no_activations() -> None:
    backbone = Toy()
    freezer = Freezer(backbone)
    image, kept = torch.randn(1, 4, 8, 8), []
    for n in range(4):
        freezer.apply(n)
        saved: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t) or t, lambda t: t
        ):  # type: ignore[func-returns-value]
            outputs = backbone(image)
        assert [out.requires_grad for out in outputs] == [k >= n for k in range(3)]
        kept.append(len(saved))
    assert kept[0] > kept[1] > kept[2] > kept[3] == 0


def test_parameters_frozen_for_another_reason_stay_so() -> None:
    backbone = Toy()
    backbone.stages[1][0].bias.requires_grad_(False)
    freezer = Freezer(backbone)
    assert freezer.apply(2) is True
    assert freezer.apply(0) is True
    assert [name for name, p in backbone.named_parameters() if not p.requires_grad] == ["stages.1.0.bias"]
    for p in backbone.stages[2].parameters():
        p.requires_grad_(False)
    freezer = Freezer(backbone)
    assert freezer.apply(2) is True
    # stage 3 has nothing that could be trained, so the trained set is the same
    assert freezer.apply(3) is False
    assert freezer.num_frozen == 3


def test_what_the_freezer_refuses() -> None:
    backbone = Toy(always_frozen=1)
    freezer = Freezer(backbone)
    for value in (-1, 4, 1.0, True, None):
        with pytest.raises(ConfigError, match=r"num_frozen must be an integer in 0\.\.3, got"):
            freezer.apply(value)  # type: ignore[arg-type]
    assert flags(backbone) == [True] * 3
    freezer.apply(2)
    with pytest.raises(ConfigError, match="has 2 stages frozen already"):
        Freezer(backbone)
    freezer.apply(0)
    Freezer(backbone)  # only the always frozen stage is frozen

    class Forgetful(Toy):
        def train(self, mode: bool = True) -> Forgetful:
            nn.Module.train(self, mode)
            return self

    with pytest.raises(
        ConfigError,
        match=r"Forgetful: train\(\) must keep the first num_frozen = 1 stages in eval mode; in stage 1 "
        r"itself",
    ):
        Freezer(Forgetful()).apply(1)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("norm_eval", [True, False])
def test_a_frozen_real_backbone_gives_its_eval_features_and_a_partly_frozen_one_the_right_gradients(
    name: str, norm_eval: bool
) -> None:
    backbone = make_backbone(name, norm_eval=norm_eval)
    freezer = Freezer(backbone)
    images = torch.randn(2, 3, 64, 64)
    backbone.eval()
    with torch.no_grad():
        expected = backbone(images)
    freezer.apply(4)
    for out, want in zip(backbone.train()(images), expected, strict=True):
        assert torch.equal(out, want)
        assert not out.requires_grad
    freezer.apply(0)
    whole = gradients(backbone.eval(), images)
    freezer.apply(2)
    part = gradients(backbone.eval(), images)
    assert set(part) == {key for key in whole if key.startswith(("stages.2.", "stages.3."))}
    assert all(torch.allclose(part[key], whole[key], rtol=1e-5, atol=1e-7) for key in part)


def gradients(backbone: nn.Module, images: Tensor) -> dict[str, Tensor]:
    backbone.zero_grad()
    sum(out.square().mean() for out in backbone(images) if out.requires_grad).backward()
    return {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}


def test_a_real_detector_freezes_only_its_backbone() -> None:
    detector = make_detector(
        "rotated_retinanet", backbone="mobilenet_v2", num_classes=2, fpn_channels=16, head_convs=1
    )
    freezer = Freezer(detector.backbone)
    update = torch.optim.AdamW(detector.parameters(), lr=1e-3, weight_decay=0.1)
    images = [torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    targets = [
        {"boxes": torch.tensor([[30.0, 30, 20, 10, 15]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 5), "labels": torch.zeros(0).long()},
    ]
    for n in (4, 0, 2):
        freezer.apply(n)
        before = bits(detector)
        detector.train()
        sum(detector(images, targets).values()).backward()
        update.step()
        update.zero_grad()
        still = {name for name in before if name.startswith(tuple(f"backbone.stages.{k}." for k in range(n)))}
        assert still.isdisjoint(moved(before, detector))
        assert {name for name, p in detector.named_parameters() if name not in still} <= moved(
            before, detector
        )
        assert [name for name, p in detector.named_parameters() if not p.requires_grad] == [
            n for n, _ in detector.named_parameters() if n in still
        ]


def test_frozen_weights_stand_still_where_the_reference_lets_them_move(shared: Path) -> None:
    """Under SGD with momentum and weight decay, R50 with stem and layer1 always frozen, one full step and one
    frozen step.
    """
    cases = json.loads((shared / "reference" / "freeze_semantics.json").read_text())["cases"]
    # the reference moves if zero_grad keeps zeros
    assert [case["backbone_max_change_in_frozen_step"] > 0 for case in cases] == [
        False,
        True,
    ]
    for case in cases:
        backbone, neck = make_backbone("resnet50", norm_eval=True, always_frozen=1), nn.Conv2d(2048, 8, 1)
        freezer = Freezer(backbone)
        freezer.apply(0)
        parameters = [*backbone.parameters(), *neck.parameters()]
        update = torch.optim.SGD(parameters, lr=0.005, momentum=0.9, weight_decay=1e-4)
        for n in (0, 4):
            freezer.apply(n)
            backbone.train()
            before, neck_before = bits(backbone), bits(neck)
            neck(backbone(torch.randn(1, 3, 64, 64))[-1]).square().mean().backward()
            update.step()
            update.zero_grad(set_to_none=case["zero_grad_set_to_none"])
        assert moved(before, backbone) == set()
        assert moved(neck_before, neck) == {"weight", "bias"}
        trainable = [p for stage in backbone.stages[1:] for p in stage.parameters()]
        assert [sum(p.grad is None for p in trainable), len(trainable)] == cases[0]["backbone_grad_is_None"]
        assert sum("momentum_buffer" in update.state[p] for p in trainable) == case["momentum_buffers_kept"]
