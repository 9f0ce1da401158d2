"""Dense heads that run over every level of a pyramid with shared weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

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

    def __init__(self, channels: int, num_convs: int, anchors_per_cell: int, num_classes: int, prior: float = 0.01) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classification = self._branch(channels, num_convs, anchors_per_cell * num_classes)
        self.regression = self._branch(channels, num_convs, anchors_per_cell * 5)
        last = self.classification[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None  # noqa: PT018
        nn.init.constant_(last.bias, -math.log((1 - prior) / prior))

    @staticmethod
    def _branch(channels: int, num_convs: int, out_channels: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.Conv2d(channels, out_channels, 3, padding=1))
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
        return nn.Sequential(*layers)

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level logits [B, H_l * W_l * A, C] and deltas [B, H_l * W_l * A, 5], for maps [B, channels, H_l, W_l]."""
        logits = [_per_anchor(self.classification(x), self.num_classes) for x in levels]
        deltas = [_per_anchor(self.regression(x), 5) for x in levels]
        return logits, deltas


def _per_anchor(x: Tensor, values: int) -> Tensor:
    """[B, A * values, H, W] -> [B, H * W * A, values]."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)
