"""Linear centred kernel alignment: how alike two sets of features of the same examples are."""

from __future__ import annotations

import torch
from torch import Tensor

from dbf_ray.errors import ConfigError


def linear_cka(first: Tensor, second: Tensor) -> float:
    """CKA with linear kernels (Kornblith et al. 2019, arXiv 1905.00414, eq. 3 and section 3: ||Y'X||^2 /
    (||X'X|| ||Y'Y||), columns centred).

    Invariant under rotations and scalings of either side's features. Computed in float64.

    Args:
        first: [n, p], a row for each example.
        second: [n, q], for the same examples in the same order.

    Returns:
        0..1, 1 for features that are equal up to rotation and scale. Where one side does not vary over the
        examples: 1 if neither does, else 0.

    Raises:
        ConfigError: the shapes do not fit.
    """
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second) or not len(first):
        raise ConfigError(
            f"features to compare must be [n, p] and [n, q] with n >= 1, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    x, y = (features.double() - features.double().mean(0) for features in (first, second))
    x, y = _gram(x), _gram(y)  # [n, n]: as ||Y'X||^2 = <XX', YY'>, and n is small where p is large
    varies = [bool(gram.abs().max() > 0) for gram in (x, y)]
    if not all(varies):
        return float(varies[0] == varies[1])
    return min(1.0, float((x * y).sum() / (torch.linalg.norm(x) * torch.linalg.norm(y))))


def _gram(features: Tensor) -> Tensor:
    return features @ features.T
