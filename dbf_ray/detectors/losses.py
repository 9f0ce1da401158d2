"""Losses as plain functions of tensors; sums, so that the caller chooses what to divide by.

All compute in float32 at least, also where a network under autocast hands in less; float64 stays float64.
Sums over nothing are 0 and have a gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dbf_ray.errors import ConfigError
from dbf_ray.geometry import box_iou_rotated_aligned

IoULossMode = Literal["log", "linear", "square"]

# as in the reference: pairs that overlap less cost the same, -log(1e-6) = 13.8, and have no gradient
_SMALLEST_IOU = 1e-6


def sigmoid_focal_loss(
    logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0, weights: Tensor | None = None
) -> Tensor:
    """Sum of the focal loss (arXiv 1708.02002, eq. 5) over all entries.

    The same as ``torchvision.ops.sigmoid_focal_loss`` on one-hot targets, which it beats: an entry that is
    wanted costs what its negated logit costs as an unwanted one, so no one-hot matrix is needed, and no 1 - p
    that loses the digits of a small p.

    Args:
        logits: [N, C].
        targets: int64 [N], the class 0..C-1, or a negative number for background.
        alpha: weight of entries that are wanted; the others have 1 - ``alpha``.
        gamma: exponent of the modulating factor.
        weights: [N], or None for all 1.
    """
    logits = _at_least_float32(logits)
    row = torch.nonzero(targets >= 0).squeeze(-1)
    wanted = (row, targets[row])
    miss = logits.index_put(wanted, -logits[wanted])  # the probability of being wrong is its sigmoid
    loss = miss.sigmoid().pow(gamma) * F.softplus(miss)
    if weights is not None:
        loss = loss * weights[:, None]
    return (1 - alpha) * loss.sum() + (2 * alpha - 1) * loss[wanted].sum()


def l1_loss(predicted: Tensor, wanted: Tensor, beta: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Sum of the (smooth, if ``beta`` > 0) L1 loss over tensors of equal shape (arXiv 1504.08083, eq. 3, with
    the kink at ``beta``).

    Args:
        predicted, wanted: of equal shape.
        beta: below this difference the loss is quadratic.
        weights: of a shape that broadcasts to theirs, or None for all 1.
    """
    predicted, wanted = _at_least_float32(predicted), _at_least_float32(wanted)
    if weights is None:
        return F.smooth_l1_loss(predicted, wanted, reduction="sum", beta=beta)
    return (F.smooth_l1_loss(predicted, wanted, reduction="none", beta=beta) * weights).sum()


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum of the softmax cross-entropy.

    Args:
        logits: [N, C + 1], the last column for background.
        labels: int64 [N], 0..C, where C is background.
        weights: [N], or None for all 1.
    """
    if weights is None:
        return F.cross_entropy(_at_least_float32(logits), labels, reduction="sum")
    return (F.cross_entropy(_at_least_float32(logits), labels, reduction="none") * weights).sum()


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the sigmoid cross-entropy over tensors of equal shape; targets in [0, 1], soft ones too (FCOS's
    centerness).
    """
    logits = _at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")


def rotated_iou_loss(
    predicted: Tensor, wanted: Tensor, weights: Tensor | None = None, mode: IoULossMode = "log"
) -> Tensor:
    """Sum of a loss of the IoU of pairs of oriented boxes (MMRotate's ``RotatedIoULoss``).

    The overlap is computed in float64 about each pair's own centre: boxes far from the origin lose nothing.
    Pairs that do not overlap have no gradient.

    Args:
        predicted: [P, 5], pixels and degrees; gets gradients.
        wanted: [P, 5].
        weights: [P], or None for all 1.
        mode: "log": -log(IoU); "linear": 1 - IoU; "square": 1 - IoU^2.
    """
    iou = box_iou_rotated_aligned(predicted.double(), wanted.double()).clamp(min=_SMALLEST_IOU)
    if mode == "log":
        loss = -iou.log()
    elif mode == "linear":
        loss = 1 - iou
    elif mode == "square":
        loss = 1 - iou.square()
    else:
        raise ConfigError(f"mode of the rotated IoU loss must be log, linear or square, got {mode!r}")
    if weights is not None:
        loss = loss * weights
    return loss.sum().to(torch.promote_types(predicted.dtype, torch.float32))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
