"""Which object each detection of a class overlaps most: all that average precision needs to know about
geometry.

The VOC and DOTA development kits let a detection claim only the object of its image and class that it
overlaps *most*; whether that object is still free is asked afterwards (if not, the detection is a false
positive, even if a second object would have been free). So the claimed object depends neither on the IoU
threshold nor on the other detections, and is computed once for all thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dbf_ray.errors import DataError
from dbf_ray.geometry import box_iou_rotated

ROUNDING = 1e-6
"""IoU is computed in float32: an overlap short of the threshold by less than this has reached it."""


class ClassMatches(NamedTuple):
    """All detections of one class, best score first (ties: image order, then order within the image).

    Attributes:
        iou: [n] the largest IoU with an object of the same image and class; 0 where there is none.
        claimed: [n] number of that object, counted over all images; -1 where there is none.
        difficult: [n] whether that object is difficult.
        objects: how many objects of the class are not difficult.
        images: [n] number of the image that it is in.
        scores: [n].
    """

    iou: NDArray[np.float64]
    claimed: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    objects: int
    images: NDArray[np.int64]
    scores: NDArray[np.float32]


def match_classes(
    detections: Sequence[Mapping[str, Any]], ground_truth: Sequence[Mapping[str, Any]]
) -> dict[int, ClassMatches]:
    """Match the detections of each class that has objects which are not difficult; other classes are left
    out.

    Args:
        detections: per image boxes [n, 5], scores [n], labels [n].
        ground_truth: per image, in the same order, boxes [m, 5], labels [m] and difficult [m] (all false if
            absent).

    Raises:
        DataError: the lists differ in length, fields of an image do not fit each other, or a score is not
            finite.
    """
    if len(detections) != len(ground_truth):
        raise DataError(
            f"detections and ground truth must cover the same images, got {len(detections)} and "
            f"{len(ground_truth)}; give an empty entry for an image without detections or objects"
        )
    if not detections:
        return {}
    found = [_found(image, index) for index, image in enumerate(detections)]
    objects = [_objects(image, index) for index, image in enumerate(ground_truth)]
    offsets = np.cumsum([0, *(len(labels) for _, labels, _ in objects)])
    claims = [_claim(found[i], objects[i], int(offsets[i])) for i in range(len(found))]
    iou, claimed = (torch.cat([claim[part] for claim in claims]) for part in (0, 1))
    scores, labels = (torch.cat([image[part] for image in found]) for part in (1, 2))
    all_labels, all_difficult = (torch.cat([image[part] for image in objects]) for part in (1, 2))
    images = torch.repeat_interleave(torch.arange(len(found)), torch.tensor([len(one[1]) for one in found]))
    order = torch.argsort(scores, descending=True, stable=True)
    iou, claimed, labels, images, scores = (part[order] for part in (iou, claimed, labels, images, scores))
    result = {}
    for label, count in zip(*torch.unique(all_labels[~all_difficult], return_counts=True), strict=True):
        mine = labels == label
        ids = claimed[mine]
        is_difficult = all_difficult[ids.clamp(min=0)] & (ids >= 0)
        result[int(label)] = ClassMatches(
            iou[mine].double().numpy(),
            ids.numpy(),
            is_difficult.numpy(),
            int(count),
            images[mine].numpy(),
            scores[mine].float().numpy(),
        )
    return result


def _claim(
    found: tuple[Tensor, Tensor, Tensor], objects: tuple[Tensor, Tensor, Tensor], offset: int
) -> tuple[Tensor, Tensor]:
    """For each detection of an image the largest IoU [n] with an object of its class, and that object's
    number [n] (first of equals).
    """
    boxes, _, labels = found
    object_boxes, object_labels, _ = objects
    iou, claimed = torch.zeros(len(labels)), torch.full((len(labels),), -1)
    for label in torch.unique(object_labels).tolist():
        mine, theirs = torch.nonzero(labels == label)[:, 0], torch.nonzero(object_labels == label)[:, 0]
        if len(mine):
            overlaps = box_iou_rotated(boxes[mine], object_boxes[theirs])
            best = overlaps.argmax(1)
            iou[mine] = overlaps[torch.arange(len(mine)), best]
            claimed[mine] = theirs[best] + offset
    return iou, claimed


def _found(image: Mapping[str, Any], index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores, labels of an image's detections as plain CPU tensors, checked."""
    boxes, scores, labels = (
        plain(image["boxes"]).reshape(-1, 5),
        plain(image["scores"]),
        plain(image["labels"]).long(),
    )
    if not len(boxes) == len(scores) == len(labels):
        raise DataError(
            f"boxes, scores and labels must have equal length, got {len(boxes)}, {len(scores)}, "
            f"{len(labels)} (detections of image {index})"
        )
    if not torch.isfinite(scores).all():
        raise DataError(
            f"scores must be finite, got {scores[~torch.isfinite(scores)][0].item()} (detections of image "
            f"{index})"
        )
    return boxes.float(), scores, labels


def _objects(image: Mapping[str, Any], index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, labels, difficult of an image's objects as plain CPU tensors, checked."""
    boxes, labels = plain(image["boxes"]).reshape(-1, 5), plain(image["labels"]).long()
    difficult = (
        plain(image["difficult"]).bool()
        if "difficult" in image
        else torch.zeros(len(labels), dtype=torch.bool)
    )
    if not len(boxes) == len(labels) == len(difficult):
        raise DataError(
            f"boxes, labels and difficult must have equal length, got {len(boxes)}, {len(labels)}, "
            f"{len(difficult)} (ground truth of image {index})"
        )
    return boxes.float(), labels, difficult


def plain(value: Any) -> Tensor:
    """A tensor, tv_tensor, array or list as a plain detached CPU tensor."""
    return torch.as_tensor(value).detach().as_subclass(Tensor).cpu()
