"""Feature pyramid network (Lin et al. 2017, arXiv 1612.03144) with the extra levels of RetinaNet, FCOS and
Faster R-CNN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from dbf_ray.detectors.precision import no_autocast

Extra = Literal["on_input", "on_output", "pool"]


class FPN(nn.Module):
    """Lateral 1 x 1 convolutions, a top-down path and 3 x 3 output convolutions, then extra levels on top.

    Args:
        in_channels: channels of the backbone's maps to use, fine to coarse.
        out_channels: channels of every output.
        extra_levels: how many levels to add, each of twice the stride of the one before.
        extra: what they are made of. "on_input": strided convolutions, the first on the backbone's last map
            (RetinaNet, arXiv 1708.02002); "on_output": strided convolutions, the first on the pyramid's last
            map, the others after a ReLU (FCOS, arXiv 1904.01355); "pool": every second pixel of the level
            below, no parameters (Faster R-CNN).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        extra_levels: int = 2,
        extra: Extra = "on_input",
    ) -> None:
        super().__init__()
        self.kind, self.extra_levels = extra, extra_levels
        self.lateral = nn.ModuleList([nn.Conv2d(channels, out_channels, 1) for channels in in_channels])
        self.output = nn.ModuleList(
            [nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels]
        )
        first = in_channels[-1] if extra == "on_input" else out_channels
        convs = 0 if extra == "pool" else extra_levels
        self.extra = nn.ModuleList(
            [
                nn.Conv2d(first if k == 0 else out_channels, out_channels, 3, stride=2, padding=1)
                for k in range(convs)
            ]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.constant_(module.bias, 0.0)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, out_channels, H_l, W_l], fine to coarse, from the backbone's maps [B, in_channels[l], H_l,
        W_l].
        """
        levels = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for fine in range(len(levels) - 2, -1, -1):
            levels[fine] = levels[fine] + F.interpolate(
                levels[fine + 1], size=levels[fine].shape[-2:], mode="nearest"
            )
        outputs = [conv(x) for conv, x in zip(self.output, levels, strict=True)]
        if self.kind == "pool":
            for _ in range(self.extra_levels):
                outputs.append(F.max_pool2d(outputs[-1], 1, stride=2))
            return outputs
        # In float32 also under autocast: torch 2.15's CPU kernel gives wrong weight gradients in bf16 for
        # strided maps one pixel wide.
        with no_autocast(features[-1].device):
            x = (features[-1] if self.kind == "on_input" else outputs[-1]).float()
            for index, conv in enumerate(self.extra):
                x = conv(F.relu(x) if self.kind == "on_output" and index else x)
                outputs.append(x)
        return outputs
