"""The exam that every backbone sits."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.ops import StochasticDepth

from dbf_ray.cost.flops import meta_copy
from dbf_ray.detectors.backbones import BACKBONES, NormedStage, StagedBackbone, make_backbone
from dbf_ray.detectors.backbones.parts import PadToMultiple
from dbf_ray.detectors.backbones.weights import fit_state
from dbf_ray.errors import ConfigError, WeightsError
from dbf_ray.freezing import Freezer, check_backbone, stage_parameters


@dataclass(frozen=True)
class Member:
    """What a backbone must be, written down apart from the code.

    Attributes:
        parameters: how many it has.
        channels: of the four outputs.
        taps: the modules of torchvision's classifier whose results are the four maps.
        dropped: beginnings of the classifier's keys that the backbone leaves out.
        normed: each output has a layer norm, with channels in the last dimension of the tapped map or not.
    """

    parameters: int
    channels: tuple[int, int, int, int]
    taps: tuple[str, str, str, str]
    dropped: tuple[str, ...]
    normed: bool = False


LAYERS = ("layer1", "layer2", "layer3", "layer4")
BLOCKS = ("trunk_output.block1", "trunk_output.block2", "trunk_output.block3", "trunk_output.block4")


def features(*numbers: int) -> tuple[str, str, str, str]:
    first, second, third, fourth = (f"features.{number}" for number in numbers)
    return first, second, third, fourth


MEMBERS = {
    "mobilenet_v2": Member(
        1_811_712, (24, 32, 96, 320), features(3, 6, 13, 17), ("features.18.", "classifier.")
    ),
    "mobilenet_v3_large": Member(
        2_816_432, (24, 40, 112, 160), features(3, 6, 12, 15), ("features.16.", "classifier.")
    ),
    "mobilenet_v3_small": Member(
        870_560, (16, 24, 48, 96), features(1, 3, 8, 11), ("features.12.", "classifier.")
    ),
    "resnet18": Member(11_176_512, (64, 128, 256, 512), LAYERS, ("fc.",)),
    "resnet34": Member(21_284_672, (64, 128, 256, 512), LAYERS, ("fc.",)),
    "resnet50": Member(23_508_032, (256, 512, 1024, 2048), LAYERS, ("fc.",)),
    "resnet101": Member(42_500_160, (256, 512, 1024, 2048), LAYERS, ("fc.",)),
    "swin_t": Member(27_520_698, (96, 192, 384, 768), features(1, 3, 5, 7), ("norm.", "head."), normed=True),
    "swin_s": Member(48_838_602, (96, 192, 384, 768), features(1, 3, 5, 7), ("norm.", "head."), normed=True),
    "convnext_tiny": Member(
        27_821_472, (96, 192, 384, 768), features(1, 3, 5, 7), ("classifier.",), normed=True
    ),
    "efficientnet_b0": Member(
        3_595_388, (24, 40, 112, 320), features(2, 3, 5, 7), ("features.8.", "classifier.")
    ),
    "regnet_y_400mf": Member(3_903_144, (48, 104, 208, 440), BLOCKS, ("fc.",)),
    "regnet_y_800mf": Member(5_647_512, (64, 144, 320, 784), BLOCKS, ("fc.",)),
    "regnet_y_1_6gf": Member(10_313_430, (48, 120, 336, 888), BLOCKS, ("fc.",)),
}


@dataclass
class Case:
    """A backbone in eval mode, and what torchvision's classifier with the same weights computes of the same
    images.

    ``network`` is that classifier without data.
    """

    name: str
    member: Member
    backbone: StagedBackbone
    network: nn.Module
    images: Tensor
    maps: list[Tensor]

    def fresh(self, **attributes: Any) -> StagedBackbone:
        """A copy to change, in eval mode."""
        backbone = copy.deepcopy(self.backbone)
        for key, value in attributes.items():
            setattr(backbone, key, value)
        return backbone


# cut as smaller ones of their family are
LARGE = (
    "resnet34",
    "resnet101",
    "swin_s",
    "regnet_y_800mf",
    "regnet_y_1_6gf",
)
PARAMETERS = [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in BACKBONES]


@pytest.fixture(scope="module", params=PARAMETERS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Each backbone once, its weights by way of a file; the tests below go through it backbone by
    backbone.
    """
    name: str = request.param
    torch.manual_seed(1)
    network = BACKBONES[name][0](weights=None).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    file = tmp_path_factory.mktemp("weights") / f"{name}.pth"
    torch.save(network.state_dict(), file)
    backbone = make_backbone(name, file).eval()
    file.unlink()
    maps: list[Tensor] = []
    for tap in MEMBERS[name].taps:
        network.get_submodule(tap).register_forward_hook(lambda _, __, out: maps.append(out.clone()))
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        network(images)
    return Case(name, MEMBERS[name], backbone, meta_copy(network), images, maps)


def loss_of(outputs: list[Tensor]) -> Tensor:
    """A sum with fixed random weights: a layer norm's output has a constant sum and a constant sum of
    squares.
    """
    generator = torch.Generator().manual_seed(2)
    return torch.stack([(out * torch.randn(out.shape, generator=generator)).mean() for out in outputs]).sum()


def gradients(backbone: StagedBackbone, images: Tensor) -> dict[str, Tensor]:
    backbone.zero_grad()
    loss_of(backbone(images)).backward()
    return {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}


def near(found: Tensor, wanted: Tensor, relative: float) -> bool:
    return bool((found.float() - wanted.float()).norm() <= relative * wanted.float().norm())


def test_every_backbone_sits_the_exam() -> None:
    assert set(BACKBONES) == set(MEMBERS)


@pytest.mark.parametrize("name", BACKBONES)
def test_shapes_strides_and_parameters_each_in_one_stage(name: str) -> None:
    backbone, member = meta_copy(make_backbone(name)), MEMBERS[name]
    assert isinstance(backbone, StagedBackbone)
    assert (backbone.num_stages, backbone.strides, tuple(backbone.out_channels)) == (
        4,
        [4, 8, 16, 32],
        member.channels,
    )
    assert sum(p.numel() for p in backbone.parameters()) == member.parameters
    assert sorted(id(p) for stage in stage_parameters(backbone) for p in stage) == sorted(
        id(p) for p in backbone.parameters()
    )
    for height, width in ((64, 96), (67, 101)):
        outputs = backbone(torch.empty(1, 3, height, width, device="meta"))
        expected = [
            (1, c, math.ceil(height / s), math.ceil(width / s))
            for c, s in zip(member.channels, (4, 8, 16, 32), strict=True)
        ]
        assert [tuple(out.shape) for out in outputs] == expected


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny"])
def test_sides_that_are_no_multiple_of_a_patch_are_padded_with_zeros(name: str) -> None:
    backbone, images = make_backbone(name).eval(), torch.randn(1, 3, 51, 70)
    with torch.no_grad():
        outputs, wanted = backbone(images), backbone(F.pad(images, (0, 2, 0, 1)))
    assert all(torch.equal(a, b) for a, b in zip(outputs, wanted, strict=True))
    assert all(out.isfinite().all() for out in outputs)


def test_maps_equal_those_inside_torchvisions_classifier(case: Case) -> None:
    """Also that weights come whole through a file: the classifier that was saved is not the one that was
    cut.
    """
    with torch.no_grad():
        outputs = case.backbone(case.images)
    for out, raw in zip(outputs, case.maps, strict=True):
        wanted = raw
        if case.member.normed:
            last = raw if case.name.startswith("swin") else raw.permute(0, 2, 3, 1)
            wanted = F.layer_norm(
                last, last.shape[-1:], eps=1e-5 if case.name.startswith("swin") else 1e-6
            ).permute(0, 3, 1, 2)
        torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


def test_output_norms_are_the_stages_own_and_not_in_the_way(case: Case) -> None:
    backbone = case.fresh()
    norms = [stage.norm for stage in backbone.stages if isinstance(stage, NormedStage)]
    assert len(norms) == (4 if case.member.normed else 0)
    before = backbone(case.images)
    for norm in norms[:1]:
        for parameter in norm.parameters():
            nn.init.constant_(parameter, 0.5)
        after = backbone(case.images)
        torch.testing.assert_close(after[0], before[0] * 0.5 + 0.5)
        assert all(torch.equal(a, b) for a, b in zip(after[1:], before[1:], strict=True))


def test_every_parameter_is_used_and_a_frozen_prefix_changes_no_other_gradient(case: Case) -> None:
    backbone = case.fresh()
    freezer, whole = Freezer(backbone), {}
    for n in (0, 2, 4):
        freezer.apply(n)
        outputs = backbone(case.images)
        assert [out.requires_grad for out in outputs] == [stage >= n for stage in range(4)]
        if n == 4:
            break
        found = gradients(backbone, case.images)
        whole = whole or found
        assert list(found) == [
            name for name, _ in backbone.named_parameters() if int(name.split(".")[1]) >= n
        ]
        assert [name for name, gradient in found.items() if not gradient.any()] == []
        assert [name for name, gradient in found.items() if not near(gradient, whole[name], 1e-4)] == []


def test_state_dict_round_trip(case: Case) -> None:
    other = meta_copy(case.backbone)
    other.load_state_dict(case.backbone.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        assert all(
            torch.equal(a, b) for a, b in zip(other(case.images), case.backbone(case.images), strict=True)
        )


@pytest.mark.filterwarnings("ignore:for features.*copying from a non-meta parameter")
def test_what_is_dropped_may_be_missing_from_weights_or_differ_and_nothing_else(case: Case) -> None:
    stages = BACKBONES[case.name][1](case.network)[0]
    state = {key: torch.empty_like(value, device="meta") for key, value in case.network.state_dict().items()}
    kept = {key: value for key, value in state.items() if not key.startswith(case.member.dropped)}
    assert 0 < len(kept) < len(state)
    fit_state(case.network, kept, "file", case.name, stages)
    fit_state(
        case.network,
        {**kept, **{key: torch.empty(7, device="meta") for key in state.keys() - kept.keys()}},
        "file",
        case.name,
        stages,
    )
    for key in (next(iter(kept)), next(key for key in reversed(kept) if key.endswith(".weight"))):
        with pytest.raises(
            WeightsError, match=f"file does not fit {case.name}: 1 tensors missing, first {key}"
        ):
            fit_state(case.network, {k: v for k, v in state.items() if k != key}, "file", case.name, stages)


def test_channels_last_gives_the_same_maps(case: Case) -> None:
    backbone = case.fresh().to(memory_format=torch.channels_last)
    with torch.no_grad():
        outputs = backbone(case.images.contiguous(memory_format=torch.channels_last))
        for out, wanted in zip(outputs, case.backbone(case.images), strict=True):
            assert near(out, wanted, 1e-5)


def test_bf16_gives_nearly_the_same_maps_frozen_or_not(case: Case) -> None:
    frozen, images = case.fresh(num_frozen=4), case.images[:1, :, :32, :64]
    with torch.no_grad():
        exact = case.backbone(images)
    with torch.autocast("cpu", torch.bfloat16):
        rough, still = case.backbone(images), frozen(images)
    for a, b, c in zip(exact, rough, still, strict=True):
        assert near(b, a, 0.05)
        assert torch.equal(b, c)


def test_frozen_stages_stand_still_to_the_bit(case: Case) -> None:
    """Weights, norm buffers and drop-path, over optimizer steps in train mode with batch norms trained."""
    backbone = case.fresh(norm_eval=False)
    depths = [[m for m in stage.modules() if isinstance(m, StochasticDepth)] for stage in backbone.stages]
    for depth in [depth for stage in depths for depth in stage]:
        depth.p = 0.5
    Freezer(backbone).apply(2)
    backbone.train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with torch.no_grad():
        wanted = case.backbone(case.images)[:2]
    update = torch.optim.SGD(backbone.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    last = []
    for step in range(2):
        outputs = backbone(case.images)
        assert all(torch.equal(out, want) for out, want in zip(outputs[:2], wanted, strict=True))
        last.append(outputs[3].detach())
        loss_of(outputs).backward()
        if step:  # both passes see the same weights
            update.step()
    assert torch.equal(*last) is not bool(depths[2] + depths[3])
    moved = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.split(".")[1] for key in moved} == {"2", "3"}


def test_norm_eval_concerns_batch_norms_alone(case: Case) -> None:
    backbone = case.fresh(num_frozen=1).train()
    for number, stage in enumerate(backbone.stages):
        for module in stage.modules():
            assert module.training is (number >= 1 and not isinstance(module, nn.BatchNorm2d))
    backbone.eval()
    assert not any(module.training for module in backbone.modules())


class Probe(nn.Module):
    """A stage that notes the autocast it runs under."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.seen: list[tuple[bool, torch.dtype, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(
            (
                torch.is_autocast_enabled("cpu"),
                torch.get_autocast_dtype("cpu"),
                torch.is_autocast_cache_enabled(),
            )
        )
        return self.layer(x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_frozen_prefix_runs_under_the_same_autocast_without_its_cache(dtype: torch.dtype) -> None:
    backbone = StagedBackbone([Probe(), Probe()], [3, 3], [1, 1])
    backbone.num_frozen = 1
    images = torch.randn(1, 3, 4, 4)
    with torch.autocast("cpu", dtype):
        backbone(images)
        assert torch.is_autocast_cache_enabled()
    with torch.autocast("cpu", dtype, enabled=False):
        backbone(images)
    assert [stage.seen[0] for stage in backbone.stages] == [(True, dtype, False), (True, dtype, True)]
    assert [stage.seen[1] for stage in backbone.stages] == [(False, dtype, True)] * 2


@pytest.mark.parametrize("name", ["resnet18", "swin_t"])
def test_in_one_autocast_frozen_and_trained_uses_do_not_share_weights(name: str) -> None:
    backbone, images = make_backbone(name).eval(), torch.randn(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        backbone.num_frozen = 4
        backbone(images)
        backbone.num_frozen = 0
        loss = loss_of(backbone(images))
    loss.backward()
    assert [key for key, p in backbone.named_parameters() if p.grad is None] == []
    with torch.autocast("cpu", torch.bfloat16):
        backbone(images)
        with torch.no_grad():
            for p in backbone.parameters():
                p.mul_(0.9)
        backbone.num_frozen = 4
        inside = backbone(images)
    with torch.autocast("cpu", torch.bfloat16):
        alone = backbone(images)
    assert all(torch.equal(a, b) for a, b in zip(inside, alone, strict=True))


def compiles_in_one_graph(backbone: StagedBackbone, images: Tensor) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend="eager", fullgraph=True)
    for n in (0, 2):
        backbone.num_frozen = n
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                outputs, wanted = compiled(images), backbone(images)
            assert [out.requires_grad for out in outputs] == [
                stage >= n for stage in range(backbone.num_stages)
            ]
            assert all(torch.equal(a, b) for a, b in zip(outputs, wanted, strict=True))


def test_a_prefix_compiles_in_one_graph() -> None:
    stages = [
        NormedStage(nn.Sequential(PadToMultiple(2), nn.Conv2d(3, 3, 2, 2)), nn.BatchNorm2d(3))
        for _ in range(3)
    ]
    compiles_in_one_graph(StagedBackbone(stages, [3] * 3, [2, 4, 8]).eval(), torch.randn(1, 3, 24, 20))


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_compiles_in_one_graph(name: str) -> None:
    compiles_in_one_graph(make_backbone(name).eval(), torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("name", "sibling", "channels"),
    [
        ("resnext50_32x4d", "resnet50", [256, 512, 1024, 2048]),
        ("wide_resnet50_2", "resnet50", [256, 512, 1024, 2048]),
        ("swin_b", "swin_t", [128, 256, 512, 1024]),
        ("convnext_small", "convnext_tiny", [96, 192, 384, 768]),
        ("efficientnet_b3", "efficientnet_b0", [32, 48, 136, 384]),
    ],
)
def test_a_row_is_enough_for_others_of_a_family(
    name: str, sibling: str, channels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES, name, (getattr(models, name), BACKBONES[sibling][1]))
    with torch.device("meta"):
        backbone = make_backbone(name)
        outputs = backbone(torch.empty(1, 3, 64, 64))
    assert [tuple(out.shape[1:]) for out in outputs] == [
        (c, s, s) for c, s in zip(channels, (16, 8, 4, 2), strict=True)
    ]
    assert backbone.out_channels == channels
    check_backbone(backbone)


def test_the_example_of_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/extending.md: the file and the row."""
    guide = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text()
    section = guide.split("## A backbone\n")[1].split("\n## ")[0]
    code, row = (
        re.search(r"```python\n(.*?)```", section, re.DOTALL),
        re.search(r'The row: `"(\w+)": \(models\.(\w+), (\w+)\)`', section),
    )
    assert code
    assert row
    scope: dict[str, Any] = {}
    exec(code[1], scope)
    monkeypatch.setitem(BACKBONES, row[1], (getattr(models, row[2]), scope[row[3]]))
    backbone = make_backbone(row[1])
    Freezer(backbone).apply(2)
    for out, channels, side in zip(
        backbone(torch.randn(1, 3, 64, 64)), backbone.out_channels, (16, 8, 4, 2), strict=True
    ):
        assert out.shape == (1, channels, side, side)


@pytest.mark.parametrize("frozen_stages", [-1, 5])
def test_frozen_stages_out_of_range_are_refused(frozen_stages: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"`frozen_stages` must be in 0\.\.4 for resnet18, got {frozen_stages}"
    ):
        make_backbone("resnet18", always_frozen=frozen_stages)


def test_an_unknown_backbone_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=f"unknown backbone 'vgg'; known: {', '.join(BACKBONES)}"):
        make_backbone("vgg")
