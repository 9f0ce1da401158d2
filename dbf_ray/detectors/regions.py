"""What a region of a two-stage detector is: an upright box (Faster R-CNN) or an oriented one (Oriented
R-CNN).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import box_iou, roi_align

from dbf_ray.geometry import (
    HorizontalBoxCoder,
    HorizontalToRotatedCoder,
    MidpointOffsetCoder,
    RotatedBoxCoder,
    box_iou_rotated,
    circumscribed,
    roi_align_rotated,
)

Size = tuple[int, int]
ROI_STDS = (0.1, 0.1, 0.2, 0.2, 0.1)


class Regions(Protocol):
    """All that differs between two-stage detectors with upright regions [n, 4] and with oriented ones [n, 5].

    Attributes:
        code_size: deltas D by which the proposal network describes an object.
    """

    code_size: int

    def encode_objects(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Deltas [n, D] of objects [n, 5] relative to upright anchors [n, 4]."""

    def decode_proposals(self, anchors: Tensor, deltas: Tensor, size: Size) -> Tensor:
        """Regions from anchors [n, 4] and deltas [n, D] in an image of ``size`` (height, width)."""

    def upright(self, regions: Tensor) -> Tensor:
        """The upright boxes [n, 4] around regions."""

    def from_objects(self, boxes: Tensor) -> Tensor:
        """Objects [n, 5] as regions."""

    def overlaps(self, regions: Tensor, boxes: Tensor) -> Tensor:
        """IoU [n, m] of regions with objects [m, 5]."""

    def scale(self, regions: Tensor) -> Tensor:
        """Side [n] in pixels of the square of a region's area."""

    def pool(self, features: Tensor, regions: Tensor, image: Tensor, stride: int, size: int) -> Tensor:
        """Features [n, C, size, size], float32, of regions on images ``image`` [n] of a map [B, C, H, W] with
        the given stride.
        """

    def encode(self, regions: Tensor, boxes: Tensor) -> Tensor:
        """Deltas [n, 5] that turn regions into objects [n, 5]."""

    def decode(self, regions: Tensor, deltas: Tensor, size: Size) -> Tensor:
        """Boxes [n, 5] from regions and deltas [n, 5] in an image of ``size`` (height, width)."""


class HorizontalRegions:
    """Upright regions (x1, y1, x2, y2); objects count with the upright boxes around them until the last step
    (MMRotate's Faster R-CNN).
    """

    code_size = 4

    def __init__(self) -> None:
        self._proposals = HorizontalBoxCoder()
        self._boxes = HorizontalToRotatedCoder(stds=ROI_STDS)

    def encode_objects(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Deltas of the upright boxes around the objects."""
        return self._proposals.encode(anchors, circumscribed(boxes))

    def decode_proposals(self, anchors: Tensor, deltas: Tensor, size: Size) -> Tensor:
        """Upright boxes, clipped to the image."""
        return self._proposals.decode(anchors, deltas, size)

    def upright(self, regions: Tensor) -> Tensor:
        """The regions themselves."""
        return regions

    def from_objects(self, boxes: Tensor) -> Tensor:
        """The upright boxes around the objects."""
        return circumscribed(boxes)

    def overlaps(self, regions: Tensor, boxes: Tensor) -> Tensor:
        """Upright IoU with the boxes around the objects."""
        return box_iou(regions, circumscribed(boxes))

    def scale(self, regions: Tensor) -> Tensor:
        """Square root of the area."""
        return ((regions[:, 2] - regions[:, 0]) * (regions[:, 3] - regions[:, 1])).clamp(min=0).sqrt()

    def pool(self, features: Tensor, regions: Tensor, image: Tensor, stride: int, size: int) -> Tensor:
        """RoIAlign with as many samples as a bin has pixels (arXiv 1703.06870)."""
        rois = torch.cat([image[:, None].to(regions.dtype), regions], -1)
        return roi_align(features.float(), rois, size, 1 / stride, sampling_ratio=-1, aligned=True)

    def encode(self, regions: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`dbf_ray.geometry.HorizontalToRotatedCoder`."""
        return self._boxes.encode(regions, boxes)

    def decode(self, regions: Tensor, deltas: Tensor, size: Size) -> Tensor:
        """See :class:`dbf_ray.geometry.HorizontalToRotatedCoder`."""
        return self._boxes.decode(regions, deltas, size)


class OrientedRegions:
    """Oriented regions (cx, cy, w, h, degrees), proposed as midpoint offsets (Oriented R-CNN, arXiv
    2108.05699).
    """

    code_size = 6

    def __init__(self) -> None:
        self._proposals = MidpointOffsetCoder()
        self._boxes = RotatedBoxCoder(stds=ROI_STDS)

    def encode_objects(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Midpoint offsets."""
        return self._proposals.encode(anchors, boxes)

    def decode_proposals(self, anchors: Tensor, deltas: Tensor, size: Size) -> Tensor:
        """Oriented boxes, which may reach past the image."""
        return self._proposals.decode(anchors, deltas)

    def upright(self, regions: Tensor) -> Tensor:
        """The upright boxes around the regions."""
        return circumscribed(regions)

    def from_objects(self, boxes: Tensor) -> Tensor:
        """The objects themselves."""
        return boxes

    def overlaps(self, regions: Tensor, boxes: Tensor) -> Tensor:
        """Rotated IoU."""
        return box_iou_rotated(regions, boxes)

    def scale(self, regions: Tensor) -> Tensor:
        """Square root of the area."""
        return (regions[:, 2] * regions[:, 3]).sqrt()

    def pool(self, features: Tensor, regions: Tensor, image: Tensor, stride: int, size: int) -> Tensor:
        """Rotated RoIAlign with 2 x 2 samples a bin."""
        rois = torch.cat([image[:, None].to(regions.dtype), regions], -1)
        return roi_align_rotated(features.float(), rois, size, 1 / stride, sampling_ratio=2)

    def encode(self, regions: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`dbf_ray.geometry.RotatedBoxCoder`."""
        return self._boxes.encode(regions, boxes)

    def decode(self, regions: Tensor, deltas: Tensor, size: Size) -> Tensor:
        """See :class:`dbf_ray.geometry.RotatedBoxCoder`."""
        return self._boxes.decode(regions, deltas, size)
