"""Feature pyramid network (Lin et al. 2017, arXiv 1612.03144) with RetinaNet's extra levels (arXiv 1708.02002)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FPN(nn.Module):
    """Lateral 1 x 1 convolutions, a top-down path and 3 x 3 output convolutions, then extra strided levels from the last input.

    Args:
        in_channels: channels of the backbone's maps to use, fine to coarse.
        out_channels: channels of every output.
        extra_levels: strided convolutions on top; the first takes the backbone's last map ("on_input" in the reference).
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256, extra_levels: int = 2) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(channels, out_channels, 1) for channels in in_channels])
        self.output = nn.ModuleList([nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels])
        first = in_channels[-1]
        self.extra = nn.ModuleList(
            [nn.Conv2d(first if k == 0 else out_channels, out_channels, 3, stride=2, padding=1) for k in range(extra_levels)]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.constant_(module.bias, 0.0)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, out_channels, H_l, W_l], fine to coarse, from the backbone's maps [B, in_channels[l], H_l, W_l]."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for fine in range(len(levels) - 2, -1, -1):
            levels[fine] = levels[fine] + F.interpolate(levels[fine + 1], size=levels[fine].shape[-2:], mode="nearest")
        outputs = [conv(x) for conv, x in zip(self.output, levels, strict=True)]
        # In float32 also under autocast: torch 2.15's CPU kernel gives wrong weight gradients in bf16 for strided maps one pixel wide.
        device = features[-1].device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else contextlib.nullcontext():
            x = features[-1].float()
            for conv in self.extra:
                x = conv(x)
                outputs.append(x)
        return outputs
