"""Rotated RetinaNet: RetinaNet (arXiv 1708.02002) on oriented anchors, as in MMRotate's
``rotated_retinanet_obb``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dbf_ray.detectors.anchors import RotatedAnchors, level_shapes
from dbf_ray.detectors.assigners import IGNORED, assign_max_iou
from dbf_ray.detectors.backbones import FrozenFeatures, StagedBackbone
from dbf_ray.detectors.base import Batch, OneStageDetector, Targets, padded_size
from dbf_ray.detectors.fpn import FPN
from dbf_ray.detectors.heads import RetinaHead
from dbf_ray.detectors.losses import l1_loss, sigmoid_focal_loss
from dbf_ray.detectors.postprocess import Candidates
from dbf_ray.geometry import RotatedBoxCoder

OCTAVE_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))


@dataclass(frozen=True)
class Assignment:
    """For each of the B images and N anchors: the class wanted, and for the P positives the deltas wanted.

    Attributes:
        labels: int64 [B, N], class, or BACKGROUND, or IGNORED.
        positive: int64 [P], indices into the B * N flattened anchors.
        deltas: float [P, 5].
    """

    labels: Tensor
    positive: Tensor
    deltas: Tensor


class RotatedRetinaNet(OneStageDetector):
    """One-stage detector on pyramid levels P3 to P7.

    Args:
        backbone: its last three stages (strides 8, 16, 32) feed the pyramid.
        num_classes: C.
        fpn_channels: width of pyramid and head.
        head_convs: convolutions in each branch of the head.
        anchor_scales: sub-octave sizes; an anchor's size is 4 strides times this.
        anchor_ratios: w / h; r and 1 / r differ by a right angle.
        anchor_angles: degrees, counter-clockwise. The reference has 0 alone, which slim rotated objects
            hardly overlap.
        positive_iou, negative_iou: thresholds of the max-IoU assignment.
        score_threshold: detections up to it are dropped.
        nms_threshold: rotated IoU at which a better detection of the same class suppresses.
        topk_candidates: anchors kept per level before suppression.
        detections_per_image: detections kept after suppression.
        loss_beta: kink of the smooth L1 box loss; 0 is plain L1, the reference's.
    """

    def __init__(
        self,
        backbone: StagedBackbone,
        num_classes: int,
        *,
        fpn_channels: int = 256,
        head_convs: int = 4,
        anchor_scales: Sequence[float] = OCTAVE_SCALES,
        anchor_ratios: Sequence[float] = (1.0, 2.0, 0.5),
        anchor_angles: Sequence[float] = (0.0,),
        positive_iou: float = 0.5,
        negative_iou: float = 0.4,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.1,
        topk_candidates: int = 2000,
        detections_per_image: int = 2000,
        loss_beta: float = 0.0,
    ) -> None:
        super().__init__(backbone, num_classes, levels_from=len(backbone.strides) - 3)
        strides = backbone.strides[self.levels_from :]
        self.neck = FPN(backbone.out_channels[self.levels_from :], fpn_channels)
        self.anchors = RotatedAnchors(
            [*strides, strides[-1] * 2, strides[-1] * 4], 4.0, anchor_scales, anchor_ratios, anchor_angles
        )
        self.head = RetinaHead(fpn_channels, head_convs, self.anchors.per_cell, num_classes)
        self.coder = RotatedBoxCoder()
        self.positive_iou, self.negative_iou = positive_iou, negative_iou
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.topk_candidates, self.detections_per_image = topk_candidates, detections_per_image
        self.loss_beta = loss_beta

    def dense_outputs(self, images: Tensor, frozen: FrozenFeatures | None = None) -> list[Tensor]:
        """Logits of each level, then deltas of each level; see :class:`.heads.RetinaHead`."""
        logits, deltas = self.head(self.pyramid(images, frozen))
        return [*logits, *deltas]

    def _anchors(self, padded: tuple[int, int]) -> list[Tensor]:
        return self.anchors(level_shapes(padded, self.anchors.strides))

    def assign(
        self, targets: Targets, sizes: list[tuple[int, int]], padded: tuple[int, int]
    ) -> tuple[Assignment, Tensor]:
        """Max-IoU assignment; anchors on cells beyond an image's own padding are ignored.

        One normalizer: the positives, an image without any counting as one (as in the reference).
        """
        anchors = torch.cat(self._anchors(padded))
        labels, positive, deltas, count = [], [], [], 0
        for index, (target, size) in enumerate(zip(targets, sizes, strict=True)):
            inside = torch.nonzero(~_beyond(anchors, size)).squeeze(-1)
            object_of = torch.full((len(anchors),), IGNORED, dtype=torch.int64, device=anchors.device)
            object_of[inside] = self.match(anchors[inside], target["boxes"])
            found = torch.nonzero(object_of >= 0).squeeze(-1)
            objects = object_of[found]
            label = object_of.clone()
            label[found] = target["labels"][objects]
            labels.append(label)
            positive.append(found + index * len(anchors))
            deltas.append(self.coder.encode(anchors[found], target["boxes"][objects]))
            count += max(len(found), 1)
        return Assignment(torch.stack(labels), torch.cat(positive), torch.cat(deltas)), anchors.new_tensor(
            [count]
        )

    def match(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Which of the objects [M, 5] each anchor [N, 5] stands for: int64 [N], an index, or BACKGROUND, or
        IGNORED.
        """
        return assign_max_iou(anchors, boxes, self.positive_iou, self.negative_iou)

    def losses_from(self, outputs: list[Tensor], batch: Batch, normalizers: Tensor) -> dict[str, Tensor]:
        """Focal loss over all anchors that are not ignored and L1 loss over the positives' deltas, each
        divided by the positives.
        """
        half = len(outputs) // 2
        logits, deltas = (
            torch.cat(part, 1).float().flatten(0, 1) for part in (outputs[:half], outputs[half:])
        )
        assignment: Assignment = batch.assignment
        labels = assignment.labels.flatten()
        counted = torch.nonzero(labels != IGNORED).squeeze(-1)
        return {
            "classification": sigmoid_focal_loss(logits[counted], labels[counted]) / normalizers[0],
            "regression": l1_loss(deltas[assignment.positive], assignment.deltas, self.loss_beta)
            / normalizers[0],
        }

    def level_candidates(self, outputs: list[Tensor], batch: Batch) -> Iterator[list[Candidates]]:
        """See :meth:`.OneStageDetector.candidates`."""
        half = len(outputs) // 2
        levels = list(zip(self._anchors(batch.padded), outputs[:half], outputs[half:], strict=True))
        for index in range(len(batch.sizes)):
            yield [
                Candidates(logits[index].float().sigmoid(), anchors, deltas[index].float())
                for anchors, logits, deltas in levels
            ]


def _beyond(anchors: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = padded_size([size])
    return (anchors[:, 0] >= width) | (anchors[:, 1] >= height)
