"""Which anchor stands for which object."""

from __future__ import annotations

import torch
from torch import Tensor

from dbf_ray.geometry import box_iou_rotated

BACKGROUND, IGNORED = -1, -2


def assign_max_iou(
    anchors: Tensor, boxes: Tensor, positive_iou: float = 0.5, negative_iou: float = 0.4, low_quality_iou: float = 0.0
) -> Tensor:
    """Assign each anchor the object it overlaps most (mmdet's ``MaxIoUAssigner``).

    An anchor is positive at IoU >= ``positive_iou`` and background at IoU < ``negative_iou``; between them it is ignored. Besides, every
    object takes all anchors that share its own best IoU, if that is >= ``low_quality_iou`` and above 0 (later objects win).

    Args:
        anchors: [N, 5].
        boxes: [M, 5].

    Returns:
        int64 [N]: index of the object, or :data:`BACKGROUND`, or :data:`IGNORED`.
    """
    assigned = torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    if not len(boxes):
        return assigned
    iou = box_iou_rotated(anchors, boxes)  # [N, M]
    best, index = iou.max(1)
    assigned[best >= negative_iou] = IGNORED
    assigned = torch.where(best >= positive_iou, index, assigned)
    top = iou.max(0).values  # [M]
    claims = (iou == top) & (top >= low_quality_iou) & (top > 0)  # [N, M]
    last = torch.where(claims, torch.arange(len(boxes), device=anchors.device), -1).max(1).values
    return torch.where(last >= 0, last, assigned)
