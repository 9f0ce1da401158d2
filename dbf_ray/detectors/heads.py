"""Dense heads that run over every level of a pyramid with shared weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class RetinaHead(nn.Module):
    """RetinaNet's two branches (arXiv 1708.02002): class logits and box deltas for every anchor.

    Args:
        channels: of the pyramid and of the branches.
        num_convs: 3 x 3 convolutions in each branch.
        anchors_per_cell: A.
        num_classes: C.
        prior: initial score of every anchor; keeps the first steps from being swamped by background.
    """

    def __init__(
        self, channels: int, num_convs: int, anchors_per_cell: int, num_classes: int, prior: float = 0.01
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classification = self._branch(channels, num_convs, anchors_per_cell * num_classes)
        self.regression = self._branch(channels, num_convs, anchors_per_cell * 5)
        set_prior(self.classification[-1], prior)

    @staticmethod
    def _branch(channels: int, num_convs: int, out_channels: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
        branch = nn.Sequential(*layers, nn.Conv2d(channels, out_channels, 3, padding=1))
        initialize(branch)
        return branch

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level logits [B, H_l * W_l * A, C] and deltas [B, H_l * W_l * A, 5], for maps [B, channels,
        H_l, W_l].
        """
        logits = [per_anchor(self.classification(x), self.num_classes) for x in levels]
        deltas = [per_anchor(self.regression(x), 5) for x in levels]
        return logits, deltas


class FCOSHead(nn.Module):
    """FCOS's two towers with group norm (arXiv 1904.01355), and an angle beside the distances (MMRotate's
    ``RotatedFCOSHead``).

    Args:
        channels: of the pyramid and of the towers.
        num_convs: 3 x 3 convolutions in each tower.
        num_classes: C.
        num_levels: L; the distances of each level have a learned scale of their own, the angles of all levels
            one.
        prior: initial score of every point.
    """

    def __init__(
        self, channels: int, num_convs: int, num_classes: int, num_levels: int, prior: float = 0.01
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classification_tower, self.regression_tower = (
            self._tower(channels, num_convs) for _ in range(2)
        )
        self.classification, self.distances, self.angle, self.centerness = (
            nn.Conv2d(channels, outputs, 3, padding=1) for outputs in (num_classes, 4, 1, 1)
        )
        self.distance_scales = nn.ParameterList([torch.ones(()) for _ in range(num_levels)])
        self.angle_scale = nn.Parameter(torch.ones(()))
        initialize(self)
        set_prior(self.classification, prior)

    @staticmethod
    def _tower(channels: int, num_convs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            # 32 groups of 8 at the reference's 256 channels
            norm = nn.GroupNorm(math.gcd(32, max(1, channels // 8)), channels)
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm, nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def forward(
        self, levels: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Per level, for maps [B, channels, H_l, W_l] with N_l = H_l * W_l points.

        Returns:
            logits [B, N_l, C]; distances to the left, top, right and bottom side [B, N_l, 4], >= 0, in
            strides; angles [B, N_l, 1], radians, clockwise; centerness logits [B, N_l, 1].
        """
        outputs: tuple[list[Tensor], ...] = ([], [], [], [])
        for x, scale in zip(levels, self.distance_scales, strict=True):
            logits, features = self.classification(self.classification_tower(x)), self.regression_tower(x)
            distances = (self.distances(features) * scale).clamp(min=0)
            angle = self.angle(features) * self.angle_scale
            for kind, (values, width) in zip(
                outputs,
                ((logits, self.num_classes), (distances, 4), (angle, 1), (self.centerness(features), 1)),
                strict=True,
            ):
                kind.append(per_anchor(values, width))
        return outputs[0], outputs[1], outputs[2], outputs[3]


class RPNHead(nn.Module):
    """A region proposal network's head (arXiv 1506.01497): whether anything is at an anchor, and its box
    relative to it.

    Args:
        channels: of the pyramid and of the head.
        num_convs: 3 x 3 convolutions that both outputs share.
        anchors_per_cell: A.
        code_size: deltas D of a box, 4 upright, 6 as midpoint offsets.
    """

    def __init__(self, channels: int, num_convs: int, anchors_per_cell: int, code_size: int) -> None:
        super().__init__()
        self.code_size = code_size
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
        self.tower = nn.Sequential(*layers)
        self.objectness = nn.Conv2d(channels, anchors_per_cell, 1)
        self.deltas = nn.Conv2d(channels, anchors_per_cell * code_size, 1)
        initialize(self)

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level objectness logits [B, H_l * W_l * A, 1] and deltas [B, H_l * W_l * A, D], for maps [B,
        channels, H_l, W_l].
        """
        features = [self.tower(x) for x in levels]
        return [per_anchor(self.objectness(x), 1) for x in features], [
            per_anchor(self.deltas(x), self.code_size) for x in features
        ]


def initialize(head: nn.Module) -> None:
    """The reference's initial weights of a dense head: normal with a standard deviation of 0.01, biases 0."""
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.0)


def set_prior(layer: nn.Module, prior: float) -> None:
    """Let a layer of class logits begin with a score of ``prior`` everywhere."""
    assert isinstance(layer, nn.Conv2d) and layer.bias is not None  # noqa: PT018
    nn.init.constant_(layer.bias, -math.log((1 - prior) / prior))


def per_anchor(x: Tensor, values: int) -> Tensor:
    """[B, A * values, H, W] -> [B, H * W * A, values]."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)
