"""Weights made by a formula from MMRotate's names, as the reference figures were made with; see the README
beside the figures.
"""

from __future__ import annotations

import json
import math
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

LAST = (
    "retina_cls",
    "retina_reg",
    "conv_cls",
    "conv_reg",
    "conv_angle",
    "conv_centerness",
    "rpn_cls",
    "rpn_reg",
    "fc_cls",
    "fc_reg",
)


@cache
def figures(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / "reference" / name).read_text())


def formula_state_dict(folder: Path, model: str) -> dict[str, Tensor]:
    """All tensors of a model of the reference, such as ``rotated_fcos__r50``, by MMRotate's names."""
    shapes = figures(folder, "model_facts.json")[model]["state_dict"]
    return {name: formula_tensor(name, shape) for name, shape in shapes.items()}


def formula_tensor(name: str, shape: list[int]) -> Tensor:
    if name.endswith(("num_batches_tracked", "relative_position_index")):
        return torch.zeros(shape, dtype=torch.int64)
    count = max(1, math.prod(shape))
    phase = (zlib.crc32(name.encode()) % 100003) / 100003 * 2 * math.pi
    s = np.sin(12.9898 * np.arange(count, dtype=np.float64) + phase) * 43758.5453
    u = 2 * (s - np.floor(s)) - 1
    if name.endswith("running_var"):
        values = 1 + 0.1 * u
    elif name.endswith("running_mean"):
        values = 0.05 * u
    elif len(shape) >= 2 and not name.endswith("relative_position_bias_table"):
        values = u * math.sqrt(3 * shape[0] / count)
    elif name.endswith(".scale"):
        values = 1 + 0.1 * u
    elif name.endswith(".weight"):
        values = (0.5 if "bn3" in name else 1.0) + 0.1 * u
    else:
        values = 0.02 * u
    owner = name.split(".")[-2]
    if name.endswith("bias") and owner in ("retina_cls", "conv_cls"):
        values = values - 2.9
    if name.endswith("bias") and owner == "conv_reg":
        values = values + 2.0
    if name.endswith("weight") and owner in LAST:
        values = values * 0.3
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def formula_image(size: int = 256) -> Tensor:
    """[1, 3, size, size], already normalised."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(size), np.arange(size), indexing="ij")
    image = np.sin(0.07 * x + c) * np.cos(0.05 * y - c) + 0.3 * np.sin(0.31 * (c + 1) * (x + y))
    return torch.from_numpy(image.astype(np.float32))[None]


def from_reference(rows: Any) -> Tensor:
    """Boxes from radians clockwise to degrees counter-clockwise."""
    boxes = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    return torch.cat([boxes[:, :4], -torch.rad2deg(boxes[:, 4:])], -1).float()
