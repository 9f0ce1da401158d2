"""What the families of backbones are cut with: the type of a cut, a stage with a norm on its output, padding
to whole patches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

Parts = tuple[list[nn.Module], list[int], list[int]]
"""Stages in forward order, channels of each stage's output, stride in pixels of each stage's output."""

Cut = Callable[[Any], Parts]
"""Cuts a torchvision classifier into stages and drops what is not needed."""

STRIDES = [4, 8, 16, 32]


class NormedStage(nn.Module):
    """A stage whose output has a norm of its own, while the next stage takes the plain map.

    Args:
        body: what the stage computes; its result goes to the next stage.
        norm: from the body's result to the stage's output [B, C, H, W].
    """

    def __init__(self, body: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.body, self.norm = body, norm

    def forward(self, features: Tensor) -> Tensor:
        """The plain map, for the next stage."""
        return self.body(features)

    def output(self, features: Tensor) -> Tensor:
        """The stage's output [B, C, H, W] for what :meth:`forward` gave."""
        return self.norm(features)


class PadToMultiple(nn.Module):
    """Zeros at the right and the bottom of [B, C, H, W], until H and W are multiples of ``multiple``.

    In front of a convolution whose kernel is as large as its stride, so that it drops no pixels.
    """

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple = multiple

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, ceil(H / multiple) * multiple, ceil(W / multiple) * multiple]."""
        right, bottom = -images.shape[3] % self.multiple, -images.shape[2] % self.multiple
        return F.pad(images, (0, right, 0, bottom)) if right or bottom else images
