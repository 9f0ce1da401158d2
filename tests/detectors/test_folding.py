"""Folding keeps the function, and centres the maps between a norm and pointwise convolutions, so that low precision rounds what varies."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import symbolic_trace

from dbf_ray.detectors.backbones.folding import absorb_shifts, count_norms, folded


def normed(channels: int, shift: float) -> nn.BatchNorm2d:
    """A batch norm with statistics, whose output is about ``shift`` from zero where it varies by about one."""
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.running_mean, 0, 0.5)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    nn.init.uniform_(norm.weight, 0.7, 1.3)
    nn.init.constant_(norm.bias, shift)
    return norm


def pointwise(shift: float = 8.0, *, bias: bool = False, groups: int = 1, padding: int = 0) -> nn.Sequential:
    """Convolution, norm, 1 x 1 convolution, norm; 3 to 8 to 4 channels."""
    second = nn.Conv2d(8, 4, 1, bias=bias, groups=groups, padding=padding)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), normed(8, shift), second, normed(4, 0.5)).eval()


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
    module = {"one reader": pointwise, "a bias": lambda: pointwise(bias=True), "two readers": lambda: Branched().eval()}[kind]()
    wanted = module(images())
    centred = symbolic_trace(copy.deepcopy(module))
    absorb_shifts(centred)
    assert torch.equal(first_norm(centred).bias, torch.zeros(8))
    assert first_norm(module).bias.min() > 1
    torch.testing.assert_close(centred(images()), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["borders are padded", "groups", "a sum reads it", "nonlinear between", "nobody reads it"])
def test_a_shift_stays_where_moving_it_would_change_the_function(kind: str) -> None:
    torch.manual_seed(0)
    made = {
        "borders are padded": pointwise(padding=1),
        "groups": pointwise(groups=2),
        "a sum reads it": Reused().eval(),
        "nonlinear between": nn.Sequential(*pointwise()[:2], nn.ReLU6(), *pointwise()[2:]).eval(),
        "nobody reads it": pointwise()[:2],
    }
    module = made[kind]
    graph = symbolic_trace(copy.deepcopy(module))
    absorb_shifts(graph)
    assert torch.equal(first_norm(graph).bias, first_norm(module).bias)
    assert torch.equal(graph(images()), module(images()))


@settings(deadline=None, max_examples=30)
@given(shift=st.floats(-30, 30), bias=st.booleans(), seed=st.integers(0, 999))
def test_folding_keeps_the_function(shift: float, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    module = pointwise(shift, bias=bias).double()
    found = folded(copy.deepcopy(module))
    assert count_norms(found) == 0
    torch.testing.assert_close(found(images().double()), module(images().double()), rtol=0, atol=1e-12 * (1 + abs(shift)))


def test_centred_maps_lose_in_low_precision_what_they_would_without_a_shift() -> None:
    """Rounding to bf16 is off by up to 2^-9 of what is rounded: of a map 40 times as far from zero as it varies by 40 times as much."""
    off = {}
    for shift in (0.0, 40.0):
        torch.manual_seed(0)
        module = with_statistics(pointwise(shift))
        with torch.no_grad():
            wanted = module(images())
            for name, way in {"centred": folded(copy.deepcopy(module)), "as it is": copy.deepcopy(module)}.items():
                off[name, shift] = float((way.bfloat16()(images().bfloat16()).float() - wanted).norm() / wanted.norm())
    assert 1e-4 < off["centred", 40.0] < 2 * off["centred", 0.0] < 0.02
    assert off["as it is", 40.0] > 8 * off["centred", 40.0]
