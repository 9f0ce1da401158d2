"""Detections of patches, brought back to the images that the patches were cut from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dbf_ray.geometry import batched_nms_rotated
from dbf_ray.geometry.intersection import frames
from dbf_ray.geometry.iou import iou_of_pairs
from dbf_ray.geometry.pairs import bounds, meeting
from dbf_ray.geometry.pieces import pick
from dbf_ray.geometry.windows import parse_patch_name

NMS_THRESHOLD = 0.1
"""MMRotate's and the DOTA devkit's for merging."""
# detections of one image from which on they are compared strip by strip: time then grows with their number,
# not with its square
_MANY = 30_000
_STRIP = 4_096


class Detections(NamedTuple):
    """Detections of one image: ``boxes`` [n, 5] in its pixels, ``scores`` [n], ``labels`` int64 [n]."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def as_found(boxes: ArrayLike, scores: ArrayLike, labels: ArrayLike, scale: float = 1.0) -> Detections:
    """Detections from boxes [n, 5] of an image that was resized by ``scale``, in the pixels of the image as
    it was.
    """
    factors = torch.tensor([1 / scale] * 4 + [1.0])
    found = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 5) * factors
    return Detections(
        found, torch.as_tensor(scores, dtype=torch.float32), torch.as_tensor(labels, dtype=torch.int64)
    )


def merge_patches(
    patches: Mapping[str, Detections], nms_threshold: float = NMS_THRESHOLD
) -> dict[str, Detections]:
    """Detections by image from detections by patch, best first.

    An object in the overlap of patches is found in each: of detections of a class whose IoU is >=
    ``nms_threshold`` the best is kept, as ``merge_det`` of MMRotate and ``ResultMerge`` of the DOTA devkit
    do. A name that is no patch's is an image, and its detections are treated alike.

    Args:
        patches: by the names that :func:`.windows.patch_name` gives, boxes in the patch's pixels.
        nms_threshold: IoU in (0, 1]; of rotated boxes, within each class.
    """
    by_image: dict[str, list[Detections]] = {}
    for name in sorted(patches):
        patch, found = parse_patch_name(name), patches[name]
        offset = found.boxes.new_tensor([patch.x, patch.y, 0, 0, 0])
        scale = found.boxes.new_tensor([1 / patch.rate] * 4 + [1])
        by_image.setdefault(patch.image, []).append(found._replace(boxes=(found.boxes + offset) * scale))
    return {image: suppressed(joined(parts), nms_threshold) for image, parts in by_image.items()}


def joined(parts: list[Detections]) -> Detections:
    """Detections of several patches as one."""
    return Detections(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def suppressed(found: Detections, nms_threshold: float) -> Detections:
    """What rotated suppression within each class leaves, best first."""
    # at 0 boxes that are far apart suppress each other too
    few = len(found.boxes) <= _MANY or nms_threshold <= 0
    keep = (
        batched_nms_rotated(found.boxes, found.scores, found.labels, nms_threshold)
        if few
        else _suppressed_by_strips(found, nms_threshold)
    )
    return Detections(*(tensor[keep] for tensor in found))


def _suppressed_by_strips(found: Detections, threshold: float) -> Tensor:
    """Indices as :func:`.batched_nms_rotated` gives them, for the detections of a large image, most of which
    are far from each other.
    """
    order = torch.argsort(found.scores, descending=True, stable=True)
    better, worse = _conflicts(found.boxes[order], found.labels[order], threshold)
    return order[_greedy(len(order), better, worse)]


def _conflicts(boxes: Tensor, labels: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Pairs (better [P], worse [P]) of boxes [N, 5], best first, of one label [N] and with IoU >=
    ``threshold``.

    Labels are moved apart along x. Then boxes are taken by their left ends: those that meet one of a strip
    begin before the strip's right end.
    """
    frame, limit = frames(boxes), float(np.float32(threshold))
    span = 4 * frame[:4].abs().sum(0).nan_to_num(0, 0, 0).max()
    number = torch.unique(labels, return_inverse=True)[1]
    outer = bounds(torch.cat([frame[:1] + number * span, frame[1:]]))
    by_left = torch.argsort(outer[0])
    lefts = outer[0][by_left]
    pieces = [(by_left[:0], by_left[:0])]
    for start in range(0, len(by_left), _STRIP):
        strip = by_left[start : start + _STRIP]
        others = by_left[start : int(torch.searchsorted(lefts, outer[2][strip].max()))]
        for i, j in meeting(pick(outer, strip), pick(outer, others)):
            once = torch.nonzero(i < j).squeeze(-1)
            first, second = strip[i[once]], others[j[once]]
            better, worse = torch.minimum(first, second), torch.maximum(first, second)
            over = iou_of_pairs(frame, frame, better, worse) >= limit
            over &= labels[better] == labels[worse]
            pieces.append((better[over], worse[over]))
    better, worse = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return better, worse


def _greedy(count: int, better: Tensor, worse: Tensor) -> Tensor:
    """Positions of ``count``, in order, that stay when each that stays removes its ``worse`` ones.

    In rounds: whoever no undecided better one could remove stays, and what it removes is gone; as many rounds
    as the longest chain has links.
    """
    stays = torch.ones(count, dtype=torch.bool, device=better.device)
    while len(better):
        threatened = torch.zeros_like(stays).index_fill_(0, worse, True)
        stays[worse[~threatened[better]]] = False
        # A pair is settled once its worse one is gone, or its better one is: gone ones remove nothing.
        left = stays[better] & stays[worse]
        better, worse = better[left], worse[left]
    return torch.nonzero(stays).squeeze(-1)
