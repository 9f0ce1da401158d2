"""FLOPs against closed forms: by hand for single convolutions, by forward hooks for whole detectors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.swin_transformer import ShiftedWindowAttention

from dbf_ray.cost.flops import (
    FlopTable,
    flop_counter,
    meta_copy,
)
from dbf_ray.detectors import make_detector
from dbf_ray.detectors.backbones import BACKBONES, make_backbone
from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Freezer
from tests.cost.prefixes import per_prefix


def small_detector(backbone: str = "mobilenet_v2", **options: Any) -> nn.Module:
    return make_detector(
        "rotated_retinanet", backbone=backbone, num_classes=2, fpn_channels=16, head_convs=1, **options
    )


def count(module: nn.Module, image: Tensor, counter: FlopCounterMode | None = None) -> tuple[int, int]:
    """(forward, backward) FLOPs of a module whose output, or the sum of whose outputs, is made small."""
    with counter or flop_counter() as forward:
        out = module(image)
    with type(forward)(display=False) if counter else flop_counter() as backward:
        torch.autograd.backward([o.sum() for o in (out if isinstance(out, list) else [out])])
    return forward.get_total_flops(), backward.get_total_flops()


def by_hand(detector: nn.Module, images: Tensor) -> tuple[int, int]:
    """Second witness: each layer's multiply-adds from its own sizes and flags, seen by hooks in a real eager
    forward pass.
    """
    total = [0, 0]

    def add(cost: int, out: Tensor, *operands: Tensor) -> None:
        total[0] += cost
        if out.requires_grad:
            total[1] += cost * sum(operand.requires_grad for operand in operands)

    def convolution(layer: nn.Conv2d, inputs: tuple[Tensor], out: Tensor) -> None:
        add(
            2 * out.numel() * (layer.in_channels // layer.groups) * math.prod(layer.kernel_size),
            out,
            inputs[0],
            layer.weight,
        )

    def linear(layer: nn.Linear, inputs: tuple[Tensor], out: Tensor) -> None:
        add(2 * out.numel() * layer.in_features, out, inputs[0], layer.weight)

    def attention(layer: ShiftedWindowAttention, inputs: tuple[Tensor], out: Tensor) -> None:
        """Queries, keys and values of whole windows, each query with each key of its window, each weight with
        each value, projection.
        """
        batch, height, width, channels = inputs[0].shape
        side = layer.window_size[0]
        tokens = batch * side * side * math.ceil(height / side) * math.ceil(width / side)
        add(2 * tokens * channels * 3 * channels, out, inputs[0], layer.qkv.weight)
        for _ in range(2):
            add(2 * tokens * side * side * channels, out, out, out)
        add(2 * tokens * channels * channels, out, out, layer.proj.weight)

    hooks = {nn.Conv2d: convolution, nn.Linear: linear, ShiftedWindowAttention: attention}
    handles = [m.register_forward_hook(hooks[type(m)]) for m in detector.modules() if type(m) in hooks]
    detector.network_outputs(images)  # type: ignore[operator]
    for handle in handles:
        handle.remove()
    return total[0], total[1]


CONVOLUTIONS = {
    "plain": nn.Conv2d(8, 12, 3, padding=1),
    "strided": nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False),
    "dilated": nn.Conv2d(8, 12, 3, dilation=2),
    "depthwise": nn.Conv2d(8, 8, 3, padding=1, groups=8),
    "multiplier": nn.Conv2d(8, 24, 3, padding=1, groups=8),
    "grouped": nn.Conv2d(8, 12, (3, 5), padding=1, groups=4),
    "transposed": nn.ConvTranspose2d(8, 12, 3, stride=2),
    "transposed grouped": nn.ConvTranspose2d(8, 12, 3, stride=2, groups=4, output_padding=1),
    "transposed depthwise": nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=8),
}
NEEDS_GRADIENTS = [(True, True, 2), (True, False, 1), (False, True, 1)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("of_input", "of_weight", "times"), NEEDS_GRADIENTS)
def test_backward_of_a_convolution_costs_a_forward_per_gradient(
    name: str, device: str, of_input: bool, of_weight: bool, times: int
) -> None:
    layer = CONVOLUTIONS[name].to("cpu") if device == "cpu" else meta_copy(CONVOLUTIONS[name])
    layer.weight.requires_grad_(of_weight)
    image = torch.empty(3, 8, 10, 14, device=device).requires_grad_(of_input)
    forward, backward = count(layer, image)
    out = layer(image)
    pixels = math.prod((image if isinstance(layer, nn.ConvTranspose2d) else out).shape[2:])
    assert (
        forward
        == 2
        * 3
        * pixels
        * layer.in_channels
        * layer.out_channels
        * math.prod(layer.kernel_size)
        // layer.groups
    )
    assert backward == times * forward


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_backward_is_twice_forward_whatever_the_groups(
    inputs: int, outputs: int, groups: int, kernel: int, stride: int, padding: int, transposed: bool
) -> None:
    make = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = make(
        inputs * groups,
        outputs * groups,
        kernel,
        stride,
        min(padding, kernel - 1),
        groups=groups,
        device="meta",
    )
    forward, backward = count(layer, torch.empty(2, inputs * groups, 7, 6, device="meta").requires_grad_())
    assert backward == 2 * forward > 0


def test_torch_itself_charges_the_weight_gradient_once_for_each_group() -> None:
    """What is corrected. If this fails, torch has been repaired and the correction can go."""
    for groups in (1, 2, 8):
        layer = nn.Conv2d(8, 8, 3, groups=groups, device="meta")
        forward, backward = count(
            layer, torch.empty(1, 8, 9, 9, device="meta").requires_grad_(), FlopCounterMode(display=False)
        )
        assert backward == (1 + groups) * forward


EXAMPLES = ("mobilenet_v2", "resnet18", "swin_t", "convnext_tiny")  # the others in the slow tests
LARGE = ("mobilenet_v3_large", "resnet34", "resnet101", "swin_s", "regnet_y_800mf", "regnet_y_1_6gf")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in BACKBONES]
)
def test_backward_is_twice_forward_for_every_backbone(name: str) -> None:
    backbone = meta_copy(make_backbone(name))
    image = torch.empty(1, 3, 96, 64, device="meta")
    forward, backward = count(backbone, image.clone().requires_grad_())
    assert backward == 2 * forward
    first = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    first_cost, _ = count(first, image.clone().requires_grad_())
    # nobody needs the gradient of the image
    assert count(backbone, image) == (
        forward,
        2 * forward - first_cost,
    )


@pytest.mark.parametrize(
    ("name", "always"),
    [
        *(pytest.param(name, 0, marks=[] if name in EXAMPLES else [pytest.mark.slow]) for name in BACKBONES),
        ("resnet18", 1),
    ],
)
def test_a_detectors_flops_equal_the_sum_over_its_layers_for_every_prefix(name: str, always: int) -> None:
    detector = small_detector(name, frozen_stages=always)
    table = FlopTable(detector)
    freezer = Freezer(detector.backbone)  # type: ignore[arg-type]
    images = torch.zeros(1, 3, 64, 96)
    for n in range(5):
        freezer.apply(n)
        step = table.step(64, 96, n)
        assert (step.forward, step.backward) == by_hand(detector, images)
        assert table(64, 96, n) == step.total
    costs = per_prefix(table, 64, 96)
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) == 5 - always
    assert costs[0] == costs[always]


def test_the_backbones_share() -> None:
    detector = small_detector()
    expected = count(meta_copy(make_backbone("mobilenet_v2")), torch.empty(1, 3, 128, 128, device="meta"))[0]
    table = FlopTable(detector)
    share = table.backbone_share(128, 128)
    assert share == pytest.approx(expected / table.step(128, 128, 0).forward, rel=1e-12)
    assert 0.5 < share < 1


@pytest.mark.parametrize(
    ("backbone", "width", "convs", "share", "ratio"),
    [
        ("mobilenet_v2", 256, 4, 0.048, 0.97),
        ("mobilenet_v2", 64, 2, 0.58, 0.61),
        ("resnet18", 256, 4, 0.25, 0.84),
    ],
)
def test_shares_are_near_those_of_the_reference_head(
    backbone: str, width: int, convs: int, share: float, ratio: float
) -> None:
    """Shares computed elsewhere for a RetinaNet head of that width at 384 px; anchors per cell differ a
    little, hence the tolerance.
    """
    table = FlopTable(
        make_detector(
            "rotated_retinanet", backbone=backbone, num_classes=5, fpn_channels=width, head_convs=convs
        )
    )
    costs = per_prefix(table, 384, 384)
    assert table.backbone_share(384, 384) == pytest.approx(share, abs=0.06)
    assert costs[-1] / costs[0] == pytest.approx(ratio, abs=0.05)


@pytest.mark.parametrize(
    ("backbone", "always", "share", "speedup"), [("resnet50", 1, 0.395, 1.29), ("swin_t", 0, 0.437, 1.41)]
)
def test_share_and_ceiling_of_what_freezing_saves_are_those_computed_elsewhere(
    backbone: str, always: int, share: float, speedup: float
) -> None:
    """RetinaNet at 800 px, R50 with stage 1 always frozen; 20 classes; theirs are not said, hence the
    tolerance.
    """
    table = FlopTable(
        make_detector("rotated_retinanet", backbone=backbone, num_classes=20, frozen_stages=always)
    )
    assert table.backbone_share(800, 800) == pytest.approx(share, abs=0.004)
    assert table(800, 800, 0) / table(800, 800, 4) == pytest.approx(speedup, abs=0.01)


def test_flops_are_per_image_and_proportional_to_the_area() -> None:
    table = FlopTable(small_detector())
    assert (
        table.step(128, 256, 0).forward
        == 2 * table.step(128, 128, 0).forward
        == table.step(256, 128, 0).forward
    )


def test_the_detector_is_not_touched() -> None:
    detector = small_detector(norm_eval=False)
    freezer = Freezer(detector.backbone)  # type: ignore[arg-type]
    freezer.apply(2)
    before = {name: t.clone() for name, t in detector.state_dict().items()}
    flags = [(p.requires_grad, p.grad) for p in detector.parameters()]
    modes = [m.training for m in detector.modules()]
    per_prefix(FlopTable(detector), 64, 64)
    assert all(torch.equal(t, before[name]) for name, t in detector.state_dict().items())
    assert flags == [(p.requires_grad, p.grad) for p in detector.parameters()]
    assert modes == [m.training for m in detector.modules()]
    assert freezer.num_frozen == 2


def test_counts_do_not_depend_on_what_is_frozen_when_the_table_is_made() -> None:
    detector = small_detector("resnet18")
    expected = per_prefix(FlopTable(detector), 64, 64)
    freezer = Freezer(detector.backbone)  # type: ignore[arg-type]
    for n in (4, 2):
        freezer.apply(n)
        assert per_prefix(FlopTable(detector), 64, 64) == expected


@pytest.mark.parametrize("norm_eval", [False, "sync"])
def test_the_norm_mode_costs_nothing_and_a_single_pixel_is_no_obstacle(norm_eval: bool | str) -> None:
    costs = per_prefix(FlopTable(small_detector("resnet18", norm_eval=norm_eval)), 32, 32)
    assert costs == per_prefix(FlopTable(small_detector("resnet18")), 32, 32)


def test_parameters_that_are_never_trained_cost_no_gradient() -> None:
    detector = small_detector()
    table = FlopTable(detector)
    detector.head.requires_grad_(False)
    assert FlopTable(detector).step(64, 64, 0).backward < table.step(64, 64, 0).backward
    assert FlopTable(detector).step(64, 64, 0).forward == table.step(64, 64, 0).forward
    detector.requires_grad_(False)
    assert FlopTable(detector).step(64, 64, 4).backward == 0


def test_the_meta_copy_holds_no_data() -> None:
    copied = meta_copy(small_detector(norm_eval="sync"))
    assert {t.device.type for t in [*copied.parameters(), *copied.buffers()]} == {"meta"}


@pytest.mark.parametrize("n", [-1, 5])
def test_prefixes_out_of_range_are_refused(n: int) -> None:
    with pytest.raises(ConfigError, match=rf"must be in 0\.\.4, got {n}"):
        FlopTable(small_detector())(64, 64, n)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18", "swin_t"])
def test_a_backbones_stages_add_up_to_it(backbone: str) -> None:
    detector = make_detector(
        "rotated_retinanet", backbone=backbone, num_classes=1, fpn_channels=16, head_convs=1
    )
    table = FlopTable(detector)
    with flop_counter() as counter, torch.no_grad():
        meta_copy(detector).backbone(torch.empty(1, 3, 64, 96, device="meta"))  # type: ignore[operator]
    assert table.backbone_forward(64, 96) == counter.get_total_flops()
    shares = table.prefix_shares(64, 96)
    assert (shares[0], shares[-1]) == (0, 1)
    assert all(low < high for low, high in itertools.pairwise(shares))
