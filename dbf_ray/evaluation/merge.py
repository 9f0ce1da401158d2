"""Detections of patches, brought back to the images that the patches were cut from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dbf_ray.geometry import batched_nms_rotated
from dbf_ray.geometry.windows import parse_patch_name

NMS_THRESHOLD = 0.1
"""MMRotate's and the DOTA devkit's for merging."""


class Found(NamedTuple):
    """Detections of one image: ``boxes`` [n, 5] in its pixels, ``scores`` [n], ``labels`` int64 [n]."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def merge_patches(patches: Mapping[str, Found], nms_threshold: float = NMS_THRESHOLD) -> dict[str, Found]:
    """Detections by image from detections by patch, best first.

    An object in the overlap of patches is found in each: of detections of a class whose IoU is >= ``nms_threshold`` the best is kept, as
    ``merge_det`` of MMRotate and ``ResultMerge`` of the DOTA devkit do. A name that is no patch's is an image, and its detections are treated alike.

    Args:
        patches: by the names that :func:`.windows.patch_name` gives, boxes in the patch's pixels.
        nms_threshold: IoU in (0, 1]; of rotated boxes, within each class.
    """
    by_image: dict[str, list[Found]] = {}
    for name in sorted(patches):
        patch, found = parse_patch_name(name), patches[name]
        offset = found.boxes.new_tensor([patch.x, patch.y, 0, 0, 0])
        scale = found.boxes.new_tensor([1 / patch.rate] * 4 + [1])
        by_image.setdefault(patch.image, []).append(found._replace(boxes=(found.boxes + offset) * scale))
    return {image: suppressed(joined(parts), nms_threshold) for image, parts in by_image.items()}


def joined(parts: list[Found]) -> Found:
    """Detections of several patches as one."""
    return Found(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def suppressed(found: Found, nms_threshold: float) -> Found:
    """What rotated suppression within each class leaves, best first."""
    keep = batched_nms_rotated(found.boxes, found.scores, found.labels, nms_threshold)
    return Found(*(tensor[keep] for tensor in found))
