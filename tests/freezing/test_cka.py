"""Linear CKA against its definition by centring matrices, and what it must not see."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.cka import linear_cka


def by_definition(x: Tensor, y: Tensor) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with HSIC(K, L) = tr(KHLH) (arXiv 1905.00414, eq. 2 and 3),
    element by element.
    """
    n = len(x)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    kernels = []
    for features in (x.double(), y.double()):
        kernels.append(
            torch.tensor([[float(sum(a * b)) for b in features] for a in features], dtype=torch.float64)
        )

    def hsic(k: Tensor, m: Tensor) -> float:
        return float(torch.trace(k @ centring @ m @ centring))

    return hsic(*kernels) / (hsic(kernels[0], kernels[0]) * hsic(kernels[1], kernels[1])) ** 0.5


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 7), p=st.integers(1, 5), q=st.integers(1, 5), seed=st.integers(0, 999))
def test_it_equals_its_definition(n: int, p: int, q: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, p, generator=generator), torch.randn(n, q, generator=generator)
    assert linear_cka(x, y) == pytest.approx(by_definition(x, y), abs=1e-10)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x), abs=1e-12)
    assert 0 <= linear_cka(x, y) <= 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_rotation_scale_and_shift_do_not_count(seed: int, scale: float, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    assert linear_cka(x, scale * x @ rotation + shift) == pytest.approx(1, abs=1e-9)


def test_closed_forms() -> None:
    x = torch.tensor([[1.0], [-1.0], [0.0], [0.0]])
    assert linear_cka(x, torch.tensor([[0.0], [0.0], [1.0], [-1.0]])) == 0  # orthogonal
    # Features x and (x, y) with y orthogonal to x: 2 * 2 / (2 * sqrt(2 * 2 + 2 * 2)) = 1 / sqrt(2).
    both = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert linear_cka(x, both) == pytest.approx(2**-0.5)
    constant = torch.ones(4, 3)
    assert (linear_cka(constant, constant * 2), linear_cka(constant, x)) == (1.0, 0.0)


def test_what_does_not_fit_is_refused() -> None:
    for first, second in (
        (torch.ones(3, 2), torch.ones(4, 2)),
        (torch.ones(3), torch.ones(3)),
        (torch.ones(0, 2), torch.ones(0, 2)),
    ):
        with pytest.raises(ConfigError, match=r"\[n, p\] and \[n, q\] with n >= 1, got"):
            linear_cka(first, second)
