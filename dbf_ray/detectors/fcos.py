"""Rotated FCOS: FCOS (arXiv 1904.01355) with an angle for each point, as in MMRotate's
``rotated_fcos_r50_fpn_1x_dota_le90``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dbf_ray.detectors.anchors import cell_centers, level_shapes
from dbf_ray.detectors.assigners import BACKGROUND, assign_points
from dbf_ray.detectors.backbones import FrozenFeatures, StagedBackbone
from dbf_ray.detectors.base import Batch, OneStageDetector, Targets
from dbf_ray.detectors.fpn import FPN
from dbf_ray.detectors.heads import FCOSHead
from dbf_ray.detectors.losses import binary_cross_entropy, rotated_iou_loss, sigmoid_focal_loss
from dbf_ray.detectors.postprocess import Candidates
from dbf_ray.errors import ConfigError
from dbf_ray.geometry import DistanceAngleCoder


@dataclass(frozen=True)
class Assignment:
    """For each of the B images and N points: the class wanted, and for the P positives what their boxes
    should be.

    Attributes:
        labels: int64 [B, N], class or BACKGROUND.
        positive: int64 [P], indices into the B * N flattened points.
        distances: float [P, 5]: distances to the four sides in strides, and the angle as the network predicts
            it.
        centerness: float [P], 0..1, 1 at a box's centre.
    """

    labels: Tensor
    positive: Tensor
    distances: Tensor
    centerness: Tensor


class RotatedFCOS(OneStageDetector):
    """One-stage detector without anchors on pyramid levels P3 to P7.

    Args:
        backbone: its last three stages (strides 8, 16, 32) feed the pyramid.
        num_classes: C.
        fpn_channels: width of pyramid and head.
        head_convs: convolutions in each tower of the head.
        regress_limits: largest distance to a side, in pixels, that each level but the last is for.
        center_radius: points less than so many strides from an object's centre, along both of its axes, stand
            for it.
        score_threshold: class scores up to it are dropped.
        nms_threshold: rotated IoU at which a better detection of the same class suppresses.
        topk_candidates: points kept per level before suppression.
        detections_per_image: detections kept after suppression.
    """

    minimum_counts = (1.0, 1e-6)

    def __init__(
        self,
        backbone: StagedBackbone,
        num_classes: int,
        *,
        fpn_channels: int = 256,
        head_convs: int = 4,
        regress_limits: Sequence[float] = (64.0, 128.0, 256.0, 512.0),
        center_radius: float = 1.5,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.1,
        topk_candidates: int = 2000,
        detections_per_image: int = 2000,
    ) -> None:
        super().__init__(backbone, num_classes, levels_from=len(backbone.strides) - 3)
        strides = backbone.strides[self.levels_from :]
        self.strides = [*strides, strides[-1] * 2, strides[-1] * 4]
        check_limits(regress_limits, len(self.strides))
        self.ranges = list(zip([-1.0, *regress_limits], [*regress_limits, math.inf], strict=True))
        self.neck = FPN(backbone.out_channels[self.levels_from :], fpn_channels, extra="on_output")
        self.head = FCOSHead(fpn_channels, head_convs, num_classes, len(self.strides))
        self.coder = DistanceAngleCoder()
        self.center_radius = center_radius
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.topk_candidates, self.detections_per_image = topk_candidates, detections_per_image

    def dense_outputs(self, images: Tensor, frozen: FrozenFeatures | None = None) -> list[Tensor]:
        """Logits, distances, angles and centerness, each of all levels; see :class:`.heads.FCOSHead`."""
        return [level for kind in self.head(self.pyramid(images, frozen)) for level in kind]

    def _by_kind(self, outputs: Sequence[Tensor]) -> list[list[Tensor]]:
        levels = len(self.strides)
        return [list(outputs[start : start + levels]) for start in range(0, len(outputs), levels)]

    def assign(
        self, targets: Targets, sizes: list[tuple[int, int]], padded: tuple[int, int]
    ) -> tuple[Assignment, Tensor]:
        """Center sampling over all points. Two normalizers: the positives, and the sum of their
        centerness.
        """
        device = self.mean.device
        shapes = level_shapes(padded, self.strides)
        points = torch.cat(
            [cell_centers(shape, stride, device) for shape, stride in zip(shapes, self.strides, strict=True)]
        )
        scale = torch.cat(
            [points.new_full((h * w,), stride) for (h, w), stride in zip(shapes, self.strides, strict=True)]
        )
        labels, positive, distances = [], [], []
        for index, target in enumerate(targets):
            object_of = assign_points(shapes, self.strides, target["boxes"], self.ranges, self.center_radius)
            found = torch.nonzero(object_of >= 0).squeeze(-1)
            objects = object_of[found]
            label = torch.full_like(object_of, BACKGROUND)
            label[found] = target["labels"][objects]
            labels.append(label)
            positive.append(found + index * len(points))
            wanted = self.coder.encode(points[found], target["boxes"][objects])
            distances.append(torch.cat([wanted[:, :4] / scale[found, None], wanted[:, 4:]], -1))
        wanted = torch.cat(distances)
        centerness = centerness_of(wanted[:, :4])
        assignment = Assignment(torch.stack(labels), torch.cat(positive), wanted, centerness)
        return assignment, torch.stack([centerness.new_tensor(len(centerness)), centerness.sum()])

    def losses_from(self, outputs: list[Tensor], batch: Batch, normalizers: Tensor) -> dict[str, Tensor]:
        """Focal loss over all points; over the positives the rotated IoU loss, weighted by centerness, and
        cross-entropy of centerness.

        Boxes are decoded around the origin and in strides: that changes no overlap, and float32 loses nothing
        far from the image's corner.
        """
        kinds = self._by_kind(outputs)
        logits, distances, angles, centerness = (torch.cat(kind, 1).float().flatten(0, 1) for kind in kinds)
        wanted: Assignment = batch.assignment
        predicted = torch.cat([distances, angles], -1)[wanted.positive]
        origin = predicted.new_zeros(len(predicted), 2)
        overlap = rotated_iou_loss(
            self.coder.decode(origin, predicted),
            self.coder.decode(origin, wanted.distances),
            wanted.centerness,
        )
        return {
            "classification": sigmoid_focal_loss(logits, wanted.labels.flatten()) / normalizers[0],
            "regression": overlap / normalizers[1],
            "centerness": binary_cross_entropy(centerness[wanted.positive, 0], wanted.centerness)
            / normalizers[0],
        }

    def level_candidates(self, outputs: list[Tensor], batch: Batch) -> Iterator[list[Candidates]]:
        """See :meth:`.OneStageDetector.candidates`."""
        shapes = level_shapes(batch.padded, self.strides)
        levels = list(zip(shapes, self.strides, *self._by_kind(outputs), strict=True))
        for index in range(len(batch.sizes)):
            yield [
                _candidates(shape, stride, *(values[index].float() for values in level))
                for shape, stride, *level in levels
            ]


def _candidates(
    shape: tuple[int, int], stride: int, logits: Tensor, distances: Tensor, angles: Tensor, centerness: Tensor
) -> Candidates:
    points = cell_centers(shape, stride, logits.device)
    predicted = torch.cat([distances * stride, angles], -1)
    return Candidates(logits.sigmoid(), points, predicted, centerness.sigmoid()[..., 0])


def centerness_of(distances: Tensor) -> Tensor:
    """Centerness [N] of points with distances [N, 4] to the left, top, right and bottom side (arXiv
    1904.01355, eq. 3).
    """
    across, along = distances[:, 0::2], distances[:, 1::2]
    ratio = (across.amin(-1) / across.amax(-1)) * (along.amin(-1) / along.amax(-1))
    return ratio.clamp(min=0).sqrt()


def check_limits(limits: Sequence[float], levels: int) -> None:
    """Refuse limits of distances that do not separate the pyramid's levels.

    Raises:
        ConfigError: naming the rule and the value.
    """
    if len(limits) != levels - 1 or list(limits) != sorted(set(limits)) or min(limits) <= 0:
        raise ConfigError(
            f"`regress_limits` must be {levels - 1} rising distances in pixels, got {list(limits)}"
        )
