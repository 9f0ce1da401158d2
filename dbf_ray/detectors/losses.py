"""Losses as plain functions of tensors; sums, so that the caller chooses what to divide by."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sum of the focal loss (arXiv 1708.02002, eq. 5) over all entries.

    Args:
        logits: [N, C].
        targets: int64 [N], the class 0..C-1, or a negative number for background.
    """
    wanted = torch.zeros_like(logits)
    positive = torch.nonzero(targets >= 0).squeeze(-1)
    wanted[positive, targets[positive]] = 1.0
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    miss = probability + wanted - 2 * probability * wanted  # 1 - p_t
    balance = alpha * wanted + (1 - alpha) * (1 - wanted)
    return (balance * miss.pow(gamma) * entropy).sum()


def l1_loss(predicted: Tensor, wanted: Tensor, beta: float = 0.0) -> Tensor:
    """Sum of the (smooth, if ``beta`` > 0) L1 loss over tensors of equal shape (arXiv 1504.08083, eq. 3, with the kink at ``beta``)."""
    return F.smooth_l1_loss(predicted, wanted, reduction="sum", beta=beta)
