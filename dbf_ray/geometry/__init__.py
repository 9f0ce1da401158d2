"""Oriented boxes: conversions, overlap, suppression, coders. Tensors in, tensors out; the convention is in
:mod:`.boxes`.
"""

from dbf_ray.geometry.boxes import boxes_to_corners, canonicalize, circumscribed, corners_to_boxes
from dbf_ray.geometry.coders import (
    DistanceAngleCoder,
    HorizontalBoxCoder,
    HorizontalToRotatedCoder,
    MidpointOffsetCoder,
    RotatedBoxCoder,
)
from dbf_ray.geometry.iou import box_iou_rotated, box_iou_rotated_aligned, overlapping_pairs
from dbf_ray.geometry.nms import batched_nms_rotated, nms_rotated
from dbf_ray.geometry.roi_align import roi_align_rotated

__all__ = [
    "DistanceAngleCoder",
    "HorizontalBoxCoder",
    "HorizontalToRotatedCoder",
    "MidpointOffsetCoder",
    "RotatedBoxCoder",
    "batched_nms_rotated",
    "box_iou_rotated",
    "box_iou_rotated_aligned",
    "boxes_to_corners",
    "canonicalize",
    "circumscribed",
    "corners_to_boxes",
    "nms_rotated",
    "overlapping_pairs",
    "roi_align_rotated",
]
