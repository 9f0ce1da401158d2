"""What a schedule of frozen prefixes costs nominally, from per-image FLOPs alone. Pure Python: known before
training.

``compute_ratio`` is free of hardware and deterministic: eager training without caches at the configured image
size. What really ran (other padded shapes, caches, repeats after a restart) is ``executed_flops`` of
:mod:`dbf_ray.cost.ledger`; the two are never mixed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dbf_ray.errors import ConfigError


@dataclass(frozen=True)
class Stretch:
    """Optimizer steps in a row with the same stages frozen.

    Attributes:
        prefix: how many are.
        steps: optimizer steps.
        hits: share of images whose frozen features come from a cache.
    """

    prefix: int
    steps: int
    hits: float = 0.0


def stretches(
    prefixes: Sequence[int],
    steps: Sequence[int],
    hits: Callable[[int, int], float] = lambda prefix, steps: 0.0,
) -> list[Stretch]:
    """The stretches of a timeline.

    Args:
        prefixes: effective prefix of each block.
        steps: optimizer steps of each.
        hits: of a prefix and so many steps in a row with it, the share of images that a cache will serve.
    """
    found = []
    for prefix, row in itertools.groupby(zip(prefixes, steps, strict=True), key=lambda block: block[0]):
        count = sum(steps for _, steps in row)
        found.append(Stretch(prefix, count, hits(prefix, count) if prefix else 0.0))
    return found


def compute_ratio(
    prefixes: Sequence[int],
    flops_per_prefix: Sequence[float],
    always_frozen: int = 0,
    weights: Sequence[float] | None = None,
) -> float:
    """Training FLOPs of a schedule over those of full fine-tuning with the same always frozen stages.

    Args:
        prefixes: frozen prefix n of each epoch (or block of steps), 0..K; probe epochs of adaptive policies
            included.
        flops_per_prefix: training FLOPs of one image for each prefix 0..K: K + 1 numbers.
        always_frozen: stages that are frozen whatever a policy says; they are so in the denominator too.
        weights: images (or steps) of each epoch or block; None: all alike.

    Returns:
        1 for a policy that never freezes, lower the more it freezes.

    Raises:
        ConfigError: no epochs, a prefix outside of 0..K, weights of another length or without any weight, or
            a model without FLOPs.
    """
    stages = len(flops_per_prefix) - 1
    wrong = [n for n in (*prefixes, always_frozen) if not 0 <= n <= stages]
    if not prefixes or wrong:
        raise ConfigError(
            f"a schedule must have at least one epoch, with prefixes in 0..{stages}, got "
            f"{wrong[0] if wrong else 'no epochs'}"
        )
    shares = [1] * len(prefixes) if weights is None else list(weights)
    if len(shares) != len(prefixes) or min(shares) < 0 or sum(shares) <= 0:
        raise ConfigError(
            f"a schedule's weights must be one number >= 0 for each of its {len(prefixes)} epochs, not all "
            f"0, got {shares}"
        )
    full = flops_per_prefix[always_frozen]
    if full <= 0:
        raise ConfigError(f"full fine-tuning must cost more than 0 FLOPs an image, got {full}")
    spent = sum(
        share * flops_per_prefix[max(n, always_frozen)] for n, share in zip(prefixes, shares, strict=True)
    )
    return spent / (full * sum(shares))


def analytic_ratio(
    prefixes: Sequence[int],
    backbone_share: float,
    prefix_shares: Sequence[float],
    always_frozen: int = 0,
    weights: Sequence[float] | None = None,
) -> float:
    """What :func:`compute_ratio` would be if backward = 2 x forward everywhere: 1 forward + 2 backward, less
    2 for what is frozen.

    A prefix n costs 3 - 2 b p(n), full training 3 - 2 b p(always_frozen).

    Args:
        prefixes, always_frozen, weights: as in :func:`compute_ratio`.
        backbone_share: b, the backbone's share of forward FLOPs.
        prefix_shares: p(n) for n = 0..K, the first n stages' share of the backbone's forward FLOPs.
    """
    return compute_ratio(
        prefixes, [3 - 2 * backbone_share * p for p in prefix_shares], always_frozen, weights
    )
