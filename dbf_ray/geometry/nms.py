"""Greedy suppression of oriented boxes.

The best box left is kept and suppresses those that overlap it. Overlaps are computed only then, and only with the boxes that touch it, so
memory stays linear in the number of boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dbf_ray.geometry.boxes import circumscribed
from dbf_ray.geometry.iou import _one_to_many


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the kept boxes, best first; a box is suppressed if its IoU with a better kept one is >= ``iou_threshold``.

    Args:
        boxes: [N, 5] (cx, cy, w, h, angle in degrees).
        scores: [N].
        iou_threshold: in [0, 1].
    """
    return batched_nms_rotated(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), iou_threshold)


def batched_nms_rotated(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """As :func:`nms_rotated`, but only boxes of the same label [N] suppress each other."""
    order = torch.argsort(scores, descending=True, stable=True)
    boxes, labels = boxes.detach().float()[order], labels[order]
    outer = circumscribed(boxes)
    low, high = outer[:, :2], outer[:, 2:]
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    kept = []
    current = 0
    while current < len(boxes):
        kept.append(current)
        alive[current] = False
        rest = slice(current + 1, None)
        touching = ((low[rest] < high[current]) & (high[rest] > low[current])).all(-1)
        candidates = torch.nonzero(touching & alive[rest] & (labels[rest] == labels[current])).squeeze(-1) + current + 1
        if len(candidates):
            alive[candidates] = _one_to_many(boxes[current], boxes[candidates]) < iou_threshold
        following = torch.nonzero(alive[rest])
        if not len(following):
            break
        current += 1 + int(following[0])
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]
