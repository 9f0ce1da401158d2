"""Images of more than 8 bits a channel, as satellites take them, and how they become 8-bit.

Sensors fill a part of 16 bits, often 11 or 12, so that a division by 256 would give black images. Each band
is stretched linearly between its 2nd and 98th percentile, the "cumulative count cut" with which QGIS shows
such images, over the whole image: all windows of one image are stretched alike. Pixels without data (the
file's nodata value, NaN) do not count.

Single bands are read by Pillow; several bands of 16 bits, which it cuts to 8 or does not know, by rasterio.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

CUT = (2.0, 98.0)  # percentiles
SAMPLE = 1 << 20  # pixels that limits are taken from, evenly spread
BITS_PER_SAMPLE = 258  # TIFF tag
_ROWS = 256  # stretched at a time: in between they are float64


class Limits(NamedTuple):
    """Values [bands] that become 0 and 255."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def bits_of(image: Image.Image) -> int:
    """Bits a channel of an opened image, as stored; 8 for those of fewer."""
    if image.mode in ("I", "F"):
        return 32
    if image.mode.startswith("I;16"):
        return 16
    stored = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    # PNG tells only by how its pixels are to be unpacked
    if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        return 16
    return max(8, *(stored if isinstance(stored, tuple) else (stored,)))


def limits_of(bands: NDArray[Any], nodata: float | None = None) -> Limits:
    """Limits of bands [C, H, W], from a sample of pixels on a regular grid."""
    step = max(1, int(np.ceil(np.sqrt(bands.shape[1] * bands.shape[2] / SAMPLE))))
    sample = bands[:, ::step, ::step].reshape(len(bands), -1).astype(np.float64)
    pairs = []
    for band in sample:
        valid = band[np.isfinite(band) & (band != nodata if nodata is not None else True)]
        pairs.append(np.percentile(valid, CUT) if valid.size else np.array([0.0, 1.0]))
    low, high = np.stack(pairs).T
    return Limits(low, high)


def stretch(bands: NDArray[Any], limits: Limits) -> NDArray[np.uint8]:
    """Bands [C, h, w] as uint8: linear between the limits, cut beyond them; NaN becomes 0. A band of one
    value becomes 0.
    """
    low, span = limits.low[:, None, None], np.maximum(limits.high - limits.low, 1e-12)[:, None, None]
    result = np.empty(bands.shape, np.uint8)
    for top in range(0, bands.shape[1], _ROWS):
        part = bands[:, top : top + _ROWS].astype(np.float64)
        scaled = np.nan_to_num((part - low) / span * 255, nan=0.0, posinf=255.0, neginf=0.0)
        result[:, top : top + _ROWS] = np.clip(np.rint(scaled), 0, 255)
    return result


def as_rgb(bands: NDArray[np.uint8]) -> Tensor:
    """Bands [C, h, w] as a tensor [3, h, w]: one or two are grey (and alpha), of more the first three are
    red, green and blue.
    """
    return torch.from_numpy(np.ascontiguousarray(bands[:3] if len(bands) >= 3 else bands[[0, 0, 0]]))
