"""From scored boxes to detections, the same for every detector (MMRotate's ``multiclass_nms_rotated``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dbf_ray.geometry import batched_nms_rotated


@dataclass(frozen=True)
class Candidates:
    """What a one-stage detector predicts on one level of an image's pyramid, at N places.

    Attributes:
        scores: float [N, C], in [0, 1].
        places: [N, 5] or [N, 2], the anchors or points that a coder decodes from.
        predicted: float [N, 5], what it decodes.
        factors: float [N], multiplied to the scores (FCOS's centerness); None: 1.
    """

    scores: Tensor
    places: Tensor
    predicted: Tensor
    factors: Tensor | None = None

    def best(self, limit: int) -> Candidates:
        """The ``limit`` places with the highest scores, factors counted in."""
        ranking = self.scores if self.factors is None else self.scores * self.factors[:, None]
        kept = best_candidates(ranking.amax(-1), limit)
        factors = None if self.factors is None else self.factors[kept]
        return Candidates(self.scores[kept], self.places[kept], self.predicted[kept], factors)


def best_candidates(ranking: Tensor, limit: int) -> Tensor:
    """Indices of the ``limit`` highest of ``ranking`` [N], best first; all of them in order where there are
    not more.
    """
    if len(ranking) <= limit:
        return torch.arange(len(ranking), device=ranking.device)
    return ranking.topk(limit).indices


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    score_threshold: float,
    nms_threshold: float,
    limit: int,
    factors: Tensor | None = None,
) -> dict[str, Tensor]:
    """Drop low scores, suppress within each class, keep the best.

    Args:
        boxes: [N, 5], one for all classes.
        scores: [N, C].
        score_threshold: a score has to be above it.
        nms_threshold: rotated IoU at which a better box of the same class suppresses.
        limit: how many to keep.
        factors: [N], multiplied to the scores after the threshold (FCOS's centerness).

    Returns:
        ``boxes`` [n, 5], ``scores`` [n], best first, and ``labels`` [n].
    """
    index, label = torch.nonzero(scores > score_threshold, as_tuple=True)
    score = scores[index, label]
    if factors is not None:
        score = score * factors[index]
    found = boxes[index]
    keep = batched_nms_rotated(found, score, label, nms_threshold)[:limit]
    return {"boxes": found[keep], "scores": score[keep], "labels": label[keep]}
