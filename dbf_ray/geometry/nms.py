"""Greedy suppression of oriented boxes.

Boxes are settled in blocks, best first, each block twice as large as the one before. Inside a block all pairs
that may overlap enough are compared; then the block's kept boxes suppress those that come after it. So most
boxes of a cluster are gone before anything is compared with them, and memory stays linear in the pairs that
touch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dbf_ray.geometry.intersection import areas, frames
from dbf_ray.geometry.iou import check_boxes, iou_of_pairs
from dbf_ray.geometry.pairs import bounds, meeting
from dbf_ray.geometry.pieces import pick

_FIRST_BLOCK = 512
_SLACK = 1e-6  # of a ratio of areas, far more than rounding


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the kept boxes, best first; a box is suppressed if its IoU with a better kept one is >=
    ``iou_threshold``.

    Args:
        boxes: [N, 5] (cx, cy, w, h, angle in degrees).
        scores: [N]; of equal ones the first is the better.
        iou_threshold: in [0, 1]; compared as float32. At 0 boxes that do not touch suppress each other too.
    """
    return batched_nms_rotated(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), iou_threshold)


def batched_nms_rotated(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """As :func:`nms_rotated`, but only boxes of the same label [N] suppress each other."""
    check_boxes(boxes)
    order = torch.argsort(scores, descending=True, stable=True)
    ranked = _Ranked(boxes.detach()[order], labels[order], iou_threshold)
    left = torch.arange(len(order), device=order.device)  # neither suppressed nor settled
    kept = [left[:0]]
    size = _FIRST_BLOCK
    while len(left):
        block, left = left[:size], left[size:]
        block = block[_greedy(len(block), *ranked.conflicts(block, block))]
        kept.append(block)
        if len(left):
            stays = torch.ones_like(left, dtype=torch.bool)
            stays[ranked.conflicts(block, left)[1]] = False
            left = left[stays]
        size *= 2
    return order[torch.cat(kept)]


class _Ranked:
    """Boxes [N, 5] with labels [N], best first: which of them overlap too much."""

    def __init__(self, boxes: Tensor, labels: Tensor, threshold: float) -> None:
        self.labels = labels
        self.threshold = float(np.float32(threshold))
        self.frames = frames(boxes)
        self.areas = areas(self.frames)
        self.bounds = bounds(_apart(self.frames, labels))
        if threshold <= 0:  # even boxes that do not touch are compared
            self.bounds = torch.zeros_like(self.bounds).index_fill_(
                0, torch.tensor([2, 3], device=labels.device), 1.0
            )

    def conflicts(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs (position in ``first``, position in ``second``), the first the better box, of one label and
        with IoU >= threshold.

        Args:
            first: [P], ranks of boxes.
            second: [Q], ranks of boxes; the same as ``first``, or all worse.
        """
        pieces = [(first[:0], second[:0])]
        for i, j in meeting(pick(self.bounds, first), pick(self.bounds, second)):
            rank, other = first.index_select(0, i), second.index_select(0, j)
            maybe = torch.nonzero(self._may_conflict(rank, other)).squeeze(-1)
            over = (
                iou_of_pairs(
                    self.frames, self.frames, rank.index_select(0, maybe), other.index_select(0, maybe)
                )
                >= self.threshold
            )
            found = maybe.index_select(0, torch.nonzero(over).squeeze(-1))
            pieces.append((i.index_select(0, found), j.index_select(0, found)))
        return torch.cat([piece[0] for piece in pieces]), torch.cat([piece[1] for piece in pieces])

    def _may_conflict(self, rank: Tensor, other: Tensor) -> Tensor:
        """Whether pairs of ranks are in order, of one label, and near enough in size: the IoU is at most the
        ratio of the areas.
        """
        area, other_area = self.areas.index_select(0, rank), self.areas.index_select(0, other)
        similar = torch.minimum(area, other_area) >= torch.maximum(area, other_area).mul_(
            self.threshold - _SLACK
        )
        return (
            (rank < other)
            .logical_and_(self.labels.index_select(0, rank) == self.labels.index_select(0, other))
            .logical_and_(similar)
        )


def _apart(frame: Tensor, labels: Tensor) -> Tensor:
    """Frames [6, N] moved along x so far that those of different labels hardly ever meet."""
    if not len(labels):
        return frame
    span = 4 * frame[:4].abs().sum(0).nan_to_num(0, 0).max()
    number = torch.unique(labels, return_inverse=True)[1]
    return torch.cat([frame[:1] + number * span, frame[1:]])


def _greedy(count: int, better: Tensor, worse: Tensor) -> Tensor:
    """Positions, in order, that stay of ``count`` when each that stays removes its ``worse`` ones; pairs [P],
    better < worse.
    """
    device = better.device
    first, second = better.cpu().numpy(), worse.cpu().numpy()
    order = np.argsort(first, kind="stable")
    first, second = first[order], second[order]
    starts = np.searchsorted(first, np.arange(count + 1)).tolist()
    stays = np.ones(count, dtype=bool)
    for position in np.unique(first).tolist():
        if stays[position]:
            stays[second[starts[position] : starts[position + 1]]] = False
    return torch.from_numpy(np.flatnonzero(stays)).to(device)
