"""Which class each object was taken for, at one score: beside average precision, which looks at each class by
itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dbf_ray.evaluation.matches import Matches
from dbf_ray.evaluation.matching import ROUNDING
from dbf_ray.geometry import box_iou_rotated

FALLBACK = 0.3  # the score where no detection is right, so that none is best


def best_f1(matches: Matches, iou_threshold: float = 0.5) -> tuple[float, float]:
    """The score from which on detections have the largest F1 over all classes together, and that F1;
    (:data:`FALLBACK`, 0) where no detection is right.

    F1 = 2 TP / (detections + objects), detections on difficult objects left out.
    """
    hit = matches.iou >= iou_threshold - ROUNDING
    counted = ~(hit & matches.difficult)
    first = np.zeros(len(hit), bool)
    candidates = np.flatnonzero(hit & counted)  # of a class, best score first
    first[candidates[np.unique(matches.claimed[candidates], return_index=True)[1]]] = True
    order = np.argsort(-matches.scores[counted], kind="stable")
    scores, right = matches.scores[counted][order], np.cumsum(first[counted][order])
    if not right.size or not right[-1]:
        return FALLBACK, 0.0
    f1 = 2 * right / (np.arange(1, len(right) + 1) + matches.objects.sum())
    best = int(f1.argmax())
    return float(scores[best]), float(f1[best])


def confusion(
    images: Mapping[str, Mapping[str, Mapping[str, Any]]],
    num_classes: int,
    score: float,
    iou_threshold: float = 0.5,
) -> NDArray[np.int64]:
    """Counts [C + 1, C + 1]: rows are what is there, columns what was found, the last of each background.

    Best score first, each detection takes the free object that it overlaps most, of whatever class, from
    ``iou_threshold`` on. Objects that none takes are in the last column, detections that take none in the
    last row, unless they lie on a difficult object; those count nowhere.

    Args:
        images: by name, ``detections`` (boxes [n, 5], scores [n], labels [n]) and ``objects`` (boxes [m, 5],
            labels [m], difficult [m]).
        num_classes: C.
        score: detections below it are left out.
        iou_threshold: rotated IoU, in (0, 1].
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for image in images.values():
        found, there = image["detections"], image["objects"]
        kept = np.flatnonzero(found["scores"] >= score)
        kept = kept[np.argsort(-found["scores"][kept], kind="stable")]
        boxes, objects = (
            torch.from_numpy(np.asarray(each, np.float32).reshape(-1, 5))
            for each in (found["boxes"][kept], there["boxes"])
        )
        overlap = box_iou_rotated(boxes, objects).numpy()
        difficult, free = there["difficult"].astype(bool), np.ones(len(objects), bool)
        for row, label in zip(overlap, found["labels"][kept].tolist(), strict=True):
            able = row >= iou_threshold - ROUNDING
            if (mine := able & free & ~difficult).any():
                taken = int(np.where(mine, row, -1).argmax())
                free[taken] = False
                counts[int(there["labels"][taken]), label] += 1
            elif not (able & difficult).any():
                counts[num_classes, label] += 1
        np.add.at(counts, (there["labels"][free & ~difficult].astype(np.int64), num_classes), 1)
    return counts
