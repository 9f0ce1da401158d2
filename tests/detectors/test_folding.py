"""Folding keeps the function, and centres the maps between a norm and pointwise convolutions, so that low
precision rounds what varies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.fx.experimental.optimization import fuse
from torch.nn.utils import parametrize

from dbf_ray.detectors.backbones import FrozenFeatures, StagedBackbone, make_backbone
from dbf_ray.detectors.backbones.engine import PrefixEngine
from dbf_ray.detectors.backbones.folding import absorb_shifts, count_norms, folded
from dbf_ray.freezing import Freezer


def normed(channels: int, shift: float) -> nn.BatchNorm2d:
    """A batch norm with statistics, whose output is about ``shift`` from zero where it varies by about
    one.
    """
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.running_mean, 0, 0.5)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    nn.init.uniform_(norm.weight, 0.7, 1.3)
    nn.init.constant_(norm.bias, shift)
    return norm


def pointwise(shift: float = 8.0, *, bias: bool = False, groups: int = 1, padding: int = 0) -> nn.Sequential:
    """Convolution, norm, 1 x 1 convolution, norm; 3 to 8 to 4 channels."""
    second = nn.Conv2d(8, 4, 1, bias=bias, groups=groups, padding=padding)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), normed(8, shift), second, normed(4, 0.5)
    ).eval()


def with_statistics(module: nn.Sequential) -> nn.Sequential:
    """With norms that know the statistics of :func:`images`."""
    norms = [part for part in module if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all that they have seen
    for _ in norms:
        module.train()(images())
    return module.eval()


def images() -> Tensor:
    return torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(1))


class Reused(nn.Module):
    """A norm that is read by a pointwise convolution and by a sum, as in a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = pointwise()[:2], nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return x + self.last(x)


class Branched(nn.Module):
    """A norm that two pointwise convolutions read, one of them with strides and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.body = pointwise()[:2]
        self.left, self.right = nn.Conv2d(8, 4, 1, stride=2), nn.Conv2d(8, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.left(x) + self.right(x)[:, :, ::2, ::2]


def first_norm(module: nn.Module) -> nn.BatchNorm2d:
    return next(part for part in module.modules() if isinstance(part, nn.BatchNorm2d))


@pytest.mark.parametrize("kind", ["one reader", "a bias", "two readers"])
def test_a_shift_before_pointwise_convolutions_is_moved_into_them(kind: str) -> None:
    torch.manual_seed(0)
    module = {
        "one reader": pointwise,
        "a bias": lambda: pointwise(bias=True),
        "two readers": lambda: Branched().eval(),
    }[kind]()
    wanted = module(images())
    centred = symbolic_trace(copy.deepcopy(module))
    absorb_shifts(centred)
    assert torch.equal(first_norm(centred).bias, torch.zeros(8))
    assert first_norm(module).bias.min() > 1
    torch.testing.assert_close(centred(images()), wanted, rtol=0, atol=2e-5)


STAYS = [
    "borders are padded",
    "neighbours are read",
    "groups",
    "a sum reads it",
    "nonlinear between",
    "the output is read",
    "parametrized",
]


@pytest.mark.parametrize("kind", STAYS)
def test_a_shift_stays_where_moving_it_would_change_the_function(kind: str) -> None:
    torch.manual_seed(0)
    made = {
        "borders are padded": pointwise(padding=1),
        "neighbours are read": nn.Sequential(*pointwise()[:2], nn.Conv2d(8, 4, 3)).eval(),
        "groups": pointwise(groups=2),
        "a sum reads it": Reused().eval(),
        "nonlinear between": nn.Sequential(*pointwise()[:2], nn.ReLU6(), *pointwise()[2:]).eval(),
        "the output is read": pointwise()[:2],
        "parametrized": pointwise(),
    }
    parametrize.register_parametrization(made["parametrized"][2], "weight", nn.Tanh())
    module = made[kind]
    graph = symbolic_trace(copy.deepcopy(module))
    absorb_shifts(graph)
    assert torch.equal(first_norm(graph).bias, first_norm(module).bias)
    assert torch.equal(graph(images()), module(images()))


def test_norms_without_a_shift_and_shared_shifts_are_folded() -> None:
    torch.manual_seed(0)
    without = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, bias=False), *pointwise()[2:]).eval()
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), *pointwise()[2:]).eval()
    shared = nn.Sequential(
        *pointwise(bias=True)[:3], normed(4, 8.0), nn.Conv2d(4, 8, 1), normed(8, 8.0), nn.Conv2d(8, 4, 1)
    ).eval()
    shared[5].bias, shared[6].bias = shared[1].bias, shared[2].bias
    for module in (without, plain, shared):
        before = copy.deepcopy(module.state_dict())
        found = folded(module)
        assert count_norms(found) == 0
        torch.testing.assert_close(found(images()), module(images()), rtol=0, atol=1e-4)
        assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


class Odd(nn.Module):
    """Something is done with a layer beside calling it once."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.conv, self.norm, self.after = pointwise(bias=True)[:3]
        if what == "after has hooks":
            self.after.register_forward_pre_hook(lambda _, given: (given[0].relu(),))
        if what == "norm has hooks":
            self.norm.register_forward_hook(lambda _, given, found: found.relu())

    def forward(self, x: Tensor) -> Tensor:
        y = self.after(self.norm(self.conv(x)))
        if self.what == "norm.bias is read":
            return y + self.norm.bias.mean()
        if self.what == "conv.weight is read":
            return y + nn.functional.conv2d(x, self.conv.weight, padding=1)[:, :4]
        return self.after(y.repeat(1, 2, 1, 1)) if self.what == "after is used 2 times" else y


ODD = [
    "after has hooks",
    "norm has hooks",
    "norm.bias is read",
    "conv.weight is read",
    "after is used 2 times",
]


@pytest.mark.parametrize("what", ODD)
def test_what_folding_would_change_is_not_folded_and_runs_as_it_is(what: str) -> None:
    torch.manual_seed(0)
    module = Odd(what).eval()
    with pytest.raises(ValueError, match=what):
        folded(module)
    backbone = StagedBackbone([module], [4], [1])
    Freezer(backbone).apply(1)
    with pytest.warns(UserWarning, match=f"batch norms of a Odd are not folded: {what}"):
        found = PrefixEngine(backbone)(images()).outputs[0]
    assert found is not None
    torch.testing.assert_close(found, module(images()), rtol=0, atol=1e-5)
    assert count_norms(folded(Odd("nothing").eval())) == 0  # of the same network without it


def test_a_norm_of_a_linear_layers_output_is_not_folded() -> None:
    """Of tokens [N, L, C] it norms along L, and with as many tokens as channels torch.fx would fold it along
    C without an error.
    """
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)).eval()
    module[1].running_mean.copy_(torch.arange(5.0))
    tokens = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(fuse(copy.deepcopy(module))(tokens), module(tokens), atol=0.1)
    with pytest.raises(ValueError, match=r"^1 norms what the linear layer 0 gives$"):
        folded(module)


def test_mobilenets_first_block_is_centred_in_the_engine_and_again_when_refreshed() -> None:
    """As ImageNet's weights have it: the first block's output is far from zero, and the next block's
    statistics know it.
    """
    torch.manual_seed(0)
    backbone = make_backbone("mobilenet_v2")
    norm = backbone.stages[0][1].conv[-1]  # type: ignore[index, union-attr]
    Freezer(backbone).apply(1)
    backbone.float32_stages = 0
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def shift_by(shift: float) -> None:
        nn.init.constant_(norm.bias, shift)
        backbone.stages[0].train()
        for part in backbone.stages[0].modules():
            if isinstance(part, nn.BatchNorm2d):
                part.reset_running_stats()
                part.momentum = None
        with torch.no_grad():
            backbone.stages[0](x)
        backbone.eval()

    def off(way: Callable[[Tensor], FrozenFeatures]) -> float:
        found, wanted = way(x).carried, backbone.frozen_features(x).carried
        assert found is not None
        assert wanted is not None
        return float((found.float() - wanted).norm() / wanted.norm())

    def autocast(x: Tensor) -> FrozenFeatures:
        with torch.autocast("cpu", torch.bfloat16):
            return backbone.frozen_features(x)

    shift_by(0.0)
    engine, exact = PrefixEngine(backbone, torch.bfloat16), PrefixEngine(backbone)
    without = off(engine)
    assert off(autocast) < 2 * without
    for shift in (40.0, -60.0):
        shift_by(shift)
        engine.refresh(backbone)
        exact.refresh(backbone)
        assert off(engine) < 2 * without
        assert off(autocast) > 4 * off(engine)
        assert off(exact) < 1e-4


@settings(deadline=None, max_examples=30)
@given(shift=st.floats(-30, 30), bias=st.booleans(), seed=st.integers(0, 999))
def test_folding_keeps_the_function(shift: float, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    module = pointwise(shift, bias=bias).double()
    found = folded(copy.deepcopy(module))
    assert count_norms(found) == 0
    torch.testing.assert_close(
        found(images().double()), module(images().double()), rtol=0, atol=1e-12 * (1 + abs(shift))
    )


def test_centred_maps_lose_in_low_precision_what_they_would_without_a_shift() -> None:
    """Rounding to bf16 is off by up to 2^-9 of what is rounded: of a map 40 times as far from zero as it
    varies by 40 times as much.
    """
    off = {}
    for shift in (0.0, 40.0):
        torch.manual_seed(0)
        module = with_statistics(pointwise(shift))
        with torch.no_grad():
            wanted = module(images())
            for name, way in {
                "centred": folded(copy.deepcopy(module)),
                "as it is": copy.deepcopy(module),
            }.items():
                off[name, shift] = float(
                    (way.bfloat16()(images().bfloat16()).float() - wanted).norm() / wanted.norm()
                )
    assert 1e-4 < off["centred", 40.0] < 2 * off["centred", 0.0] < 0.02
    assert off["as it is", 40.0] > 8 * off["centred", 40.0]
