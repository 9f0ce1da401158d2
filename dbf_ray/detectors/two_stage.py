"""Two-stage detectors: a proposal network says where anything is, a head on pooled features says what it is
and how it lies.

They differ only in what a region is (:mod:`.regions`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dbf_ray.detectors.assigners import assign_by_iou
from dbf_ray.detectors.backbones import FrozenFeatures, StagedBackbone
from dbf_ray.detectors.base import Batch, Detector, Targets
from dbf_ray.detectors.fpn import FPN
from dbf_ray.detectors.losses import cross_entropy, l1_loss
from dbf_ray.detectors.postprocess import select_detections
from dbf_ray.detectors.precision import no_autocast
from dbf_ray.detectors.regions import HorizontalRegions, OrientedRegions, Regions
from dbf_ray.detectors.roi_head import RoIHead, pool_regions
from dbf_ray.detectors.rpn import RegionProposalNetwork, RPNAssignment
from dbf_ray.detectors.samplers import sample


@dataclass(frozen=True)
class Assignment:
    """What is known before the proposals: the anchors' targets, and the objects that proposals will be
    compared with.
    """

    anchors: RPNAssignment
    targets: Targets


@dataclass(frozen=True)
class SampledRegions:
    """The S regions of a batch that the second stage learns from.

    Attributes:
        regions: [S, 4 or 5], by image.
        image: int64 [S].
        labels: int64 [S], class, or C for background.
        weights: float [S], one over the number drawn of the region's image.
        positive: int64 [P], indices of those that stand for an object.
        deltas: float [P, 5], what their boxes should be.
    """

    regions: Tensor
    image: Tensor
    labels: Tensor
    weights: Tensor
    positive: Tensor
    deltas: Tensor


class TwoStageDetector(Detector):
    """Proposal network on pyramid levels P2 to P6 and a head of two fully connected layers on regions pooled
    from P2 to P5.

    The losses of the second stage are averaged over the regions drawn of each image and then over images.
    Where all images give the full quota, as nearly always, that is the reference's average over all regions;
    and it can be told before the forward pass, however the effective batch is spread.

    Args:
        backbone: its last four stages (strides 4, 8, 16, 32) feed the pyramid.
        num_classes: C.
        fpn_channels: width of the pyramid and of the proposal network.
        head_convs: 3 x 3 convolutions of the proposal network.
        roi_channels: width of the second stage's two layers.
        anchor_scales: sizes in strides.
        anchor_ratios: w / h.
        rpn_positive_iou, rpn_negative_iou: thresholds of the anchors' assignment, by upright overlap.
        rpn_samples, rpn_positive_fraction: anchors drawn of each image, and at most which share of positives.
            null: all.
        rpn_candidates: anchors kept per level before the proposals' suppression.
        rpn_nms_threshold: upright IoU at which a better proposal of the same level suppresses; null: the
            detector's own (see the class).
        proposals: proposals kept per image.
        roi_positive_iou: overlap from which a region stands for an object; below it is background.
        roi_samples, roi_positive_fraction: regions drawn of each image, and at most which share of positives.
            null: all.
        score_threshold: detections up to it are dropped.
        nms_threshold: rotated IoU at which a better detection of the same class suppresses.
        detections_per_image: detections kept after suppression.
    """

    head: RoIHead
    regions: ClassVar[type[Regions]]
    default_rpn_nms: ClassVar[float]
    minimum_counts = (1.0, 1.0)
    quota = 512  # regions an image that the nominal cost is for

    def __init__(
        self,
        backbone: StagedBackbone,
        num_classes: int,
        *,
        fpn_channels: int = 256,
        head_convs: int = 1,
        roi_channels: int = 1024,
        anchor_scales: Sequence[float] = (8.0,),
        anchor_ratios: Sequence[float] = (2.0, 1.0, 0.5),
        rpn_positive_iou: float = 0.7,
        rpn_negative_iou: float = 0.3,
        rpn_samples: int | None = 256,
        rpn_positive_fraction: float = 0.5,
        rpn_candidates: int = 2000,
        rpn_nms_threshold: float | None = None,
        proposals: int = 2000,
        roi_positive_iou: float = 0.5,
        roi_samples: int | None = 512,
        roi_positive_fraction: float = 0.25,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.1,
        detections_per_image: int = 2000,
    ) -> None:
        super().__init__(backbone, num_classes, levels_from=len(backbone.strides) - 4)
        strides = backbone.strides[self.levels_from :]
        self.strides = strides
        self.coder = self.regions()
        self.neck = FPN(backbone.out_channels[self.levels_from :], fpn_channels, extra_levels=1, extra="pool")
        self.rpn = RegionProposalNetwork(
            fpn_channels,
            [*strides, strides[-1] * 2],
            self.coder,
            num_convs=head_convs,
            scales=anchor_scales,
            ratios=anchor_ratios,
            positive_iou=rpn_positive_iou,
            negative_iou=rpn_negative_iou,
            samples=rpn_samples,
            positive_fraction=rpn_positive_fraction,
            nms_threshold=self.default_rpn_nms if rpn_nms_threshold is None else rpn_nms_threshold,
            candidates=rpn_candidates,
            proposals=proposals,
        )
        self.head = RoIHead(fpn_channels, roi_channels, num_classes)
        self.roi_positive_iou, self.roi_samples, self.roi_positive_fraction = (
            roi_positive_iou,
            roi_samples,
            roi_positive_fraction,
        )
        self.score_threshold, self.nms_threshold, self.detections_per_image = (
            score_threshold,
            nms_threshold,
            detections_per_image,
        )

    def dense_outputs(self, images: Tensor, frozen: FrozenFeatures | None = None) -> list[Tensor]:
        """The pyramid's levels, then objectness logits of each level, then deltas of each level."""
        levels = self.pyramid(images, frozen)
        logits, deltas = self.rpn(levels)
        return [*levels, *logits, *deltas]

    def network_outputs(self, images: Tensor) -> list[Tensor]:
        """The dense outputs, and the second stage's on a quota of regions an image, whose features stand for
        pooled ones.
        """
        outputs = self.dense_outputs(images)
        # [B, channels]
        mean = torch.stack([level.float().mean((2, 3)) for level in outputs[: len(self.strides)]]).sum(0)
        size = self.head.size
        pooled = mean[:, None, :, None, None].expand(-1, self.quota, -1, size, size).flatten(0, 1)
        return [*outputs, *self.head(pooled)]

    def assign(
        self, targets: Targets, sizes: list[tuple[int, int]], padded: tuple[int, int]
    ) -> tuple[Assignment, Tensor]:
        """The anchors' targets. Two normalizers: the anchors drawn, and the images."""
        anchors, count = self.rpn.assign(targets, sizes, padded)
        return Assignment(anchors, targets), anchors.deltas.new_tensor([count, len(targets)])

    def losses(self, batch: Batch, normalizers: Tensor) -> dict[str, Tensor]:
        """Losses of the proposal network, and cross-entropy and smooth L1 loss of the regions drawn from its
        proposals.
        """
        wanted: Assignment = batch.assignment
        levels, logits, deltas = self._dense(batch.images, batch.frozen)
        with no_autocast(batch.images.device):
            losses = self.rpn.losses(logits, deltas, wanted.anchors, normalizers[0])
            proposals = self.rpn.propose(logits, deltas, batch.sizes, batch.padded)
            drawn = self.draw(proposals, wanted.targets)
            pooled = pool_regions(
                self.coder, levels, drawn.regions, drawn.image, self.strides, self.head.size
            )
        scores, boxes = self.head(pooled)
        with no_autocast(batch.images.device):
            losses["classification"] = (
                cross_entropy(scores.float(), drawn.labels, drawn.weights) / normalizers[1]
            )
            weights = drawn.weights[drawn.positive, None]
            losses["regression"] = (
                l1_loss(boxes.float()[drawn.positive], drawn.deltas, 1.0, weights) / normalizers[1]
            )
        return losses

    @torch.no_grad()
    def draw(self, proposals: list[Tensor], targets: Targets) -> SampledRegions:
        """Assign proposals and the objects themselves by overlap, and draw the regions to learn from."""
        parts: list[tuple[Tensor, ...]] = []
        start = 0
        for index, (found, target) in enumerate(zip(proposals, targets, strict=True)):
            boxes, labels = target["boxes"], target["labels"]
            regions = torch.cat([self.coder.from_objects(boxes), found])
            overlap = functools.partial(self.coder.overlaps, regions)
            object_of = assign_by_iou(
                overlap, len(regions), boxes, self.roi_positive_iou, self.roi_positive_iou, None
            )
            object_of[: len(boxes)] = torch.arange(len(boxes), device=boxes.device)
            generator = torch.Generator().manual_seed(target["seed"] + 1)
            positive, negative = sample(object_of, self.roi_samples, self.roi_positive_fraction, generator)
            chosen = torch.cat([positive, negative])
            objects = object_of[positive]
            label = torch.full_like(chosen, self.num_classes)
            label[: len(positive)] = labels[objects]
            weight = torch.full((len(chosen),), 1 / max(len(chosen), 1), device=boxes.device)
            rows = torch.arange(len(positive), device=boxes.device) + start
            deltas = self.coder.encode(regions[positive], boxes[objects])
            parts.append((regions[chosen], torch.full_like(chosen, index), label, weight, rows, deltas))
            start += len(chosen)
        return SampledRegions(*(torch.cat(column) for column in zip(*parts, strict=True)))

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[dict[str, Tensor]]:
        """Classify and refine each image's proposals and suppress within each class."""
        device = batch.images.device
        levels, logits, deltas = self._dense(batch.images, batch.frozen)
        with no_autocast(device):
            proposals = self.rpn.propose(logits, deltas, batch.sizes, batch.padded)
            counts = [len(found) for found in proposals]
            image = torch.repeat_interleave(
                torch.arange(len(counts), device=device), torch.tensor(counts, device=device)
            )
            pooled = pool_regions(
                self.coder, levels, torch.cat(proposals), image, self.strides, self.head.size
            )
        scores, boxes = self.head(pooled)
        with no_autocast(device):
            return [
                select_detections(
                    self.coder.decode(found, box, size),
                    score.softmax(-1)[:, :-1],
                    self.score_threshold,
                    self.nms_threshold,
                    self.detections_per_image,
                )
                for found, score, box, size in zip(
                    proposals,
                    scores.float().split(counts),
                    boxes.float().split(counts),
                    batch.sizes,
                    strict=True,
                )
            ]

    def _dense(
        self, images: Tensor, frozen: FrozenFeatures | None = None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        outputs = self.outputs(images, frozen)
        third = len(outputs) // 3
        return outputs[:third], outputs[third : 2 * third], outputs[2 * third :]


class RotatedFasterRCNN(TwoStageDetector):
    """Faster R-CNN with upright regions and oriented boxes, as MMRotate's
    ``rotated_faster_rcnn_r50_fpn_1x_dota_le90``.
    """

    regions = HorizontalRegions
    default_rpn_nms = 0.7


class OrientedRCNN(TwoStageDetector):
    """Oriented R-CNN (arXiv 2108.05699), as MMRotate's ``oriented_rcnn_r50_fpn_1x_dota_le90``."""

    regions = OrientedRegions
    default_rpn_nms = 0.8
