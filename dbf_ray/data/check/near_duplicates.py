"""Pairs of images that show the same picture although their files and pixels differ: encoded again, resized,
brightened, cropped a little, mirrored or turned.

Compared are grey thumbnails, first coarsely and all with all, then the few pairs that are alike, aligned and
in detail:

1. *Candidates.* Thumbnails of 16 x 16 pixels, their best plane subtracted (the light's gradient is nobody's
picture), as unit vectors: a matrix
   product gives the correlation of each image with each of the eight symmetries of each other.
2. *Confirmation.* At 64 x 64 pixels one is stretched and moved onto the other by a few Gauss-Newton steps (B.
Lucas, T. Kanade, "An iterative
   image registration technique", 1981), then correlated where they overlap.

Measured on HRSC2016's 554 training and 175 validation images (neighbouring harbours, 96,950 pairs) and on 350
of them altered: encoded as JPEG of quality 60, half as large, 15 % brighter, 2 % cropped from one corner or
from each side, 5 % cropped, or all of it at once. Coarse correlation: altered copies >= 0.81; 0.03 % of the
different pairs reach ``COARSE``. In detail: altered copies >= 0.984, different pairs <= 0.911 (generated
scenes of 96 pixels: 0.92); ``ALIKE`` is between. A difference hash (N. Krawetz, "Kind of Like That", 2013) in
place of the first step costs as much and separates worse: to keep all copies, 64 bits let 2.6 % of the
different pairs through, 256 bits 0.26 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64  # of a thumbnail, pixels
COARSE_SIDE = 16
COARSE = 0.75  # least correlation of a candidate
ALIKE = 0.955  # least correlation of aligned thumbnails
# least standard deviation (grey levels of 255) of an image that can be told from others: water is not
CONTRAST = 3.0
STEPS = 4  # of Gauss-Newton; the third changes the correlation by less than 0.001
HOPELESS = 0.8  # half of the steps must lead to this correlation
RIDGE = 1e-9  # keeps the equations solvable for an image of stripes
FARTHEST = 0.15  # a side may be stretched, and moved, by this share at most
CHUNK = 512  # images compared with all others at a time

SYMMETRIES = (
    *("", "turned by 90 degrees", "turned by 180 degrees", "turned by 270 degrees"),
    *(
        "mirrored",
        "mirrored and turned by 90 degrees",
        "mirrored and turned by 180 degrees",
        "mirrored and turned by 270 degrees",
    ),
)


class Pair(NamedTuple):
    """Two images that show the same: their indices, the correlation of the aligned thumbnails, and how the
    second is turned to fit the first.
    """

    first: int
    second: int
    correlation: float
    symmetry: str


def thumbnail(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image [H, W] as mean grey values [64, 64], whatever its shape."""
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX))


def near_duplicates(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> list[Pair]:
    """Pairs of the same picture, the best one for each two images, in order of their indices; images without
    contrast are in none.

    Args:
        first: thumbnails [N, 64, 64] of :func:`thumbnail`.
        second: thumbnails [M, 64, 64].
    """
    best: dict[tuple[int, int], Pair] = {}
    for i, j, turns in _candidates(first, second):
        found = aligned_correlation(first[i], turned(second[j], turns))
        known = best.get((i, j))
        if found >= ALIKE and (known is None or found > known.correlation):
            best[i, j] = Pair(i, j, found, SYMMETRIES[turns])
    return [best[key] for key in sorted(best)]


def turned(image: NDArray[Any], symmetry: int) -> NDArray[Any]:
    """An image [..., S, S] in one of the eight symmetries of the square, an index of ``SYMMETRIES``."""
    mirrored = image[..., ::-1] if symmetry >= 4 else image
    return np.rot90(mirrored, symmetry % 4, axes=(-2, -1))


def aligned_correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Correlation in [-1, 1] of two thumbnails [S, S] where they overlap, ``second`` stretched and moved
    along both axes to fit ``first``.

    What an image point x (from -1 to 1) of ``first`` shows is looked for at (1 + s) x + t in ``second``. Each
    step solves least squares for s and t of both axes, gain and offset, linearised at the last ones.
    """
    fixed, moving = _without_plane(_smoothed(np.stack([first, second])))
    side = fixed.shape[-1]
    across = (np.arange(side) + 0.5) / side * 2 - 1
    warp, best = np.zeros(4), -1.0
    for step in range(STEPS + 1):
        columns, column_inside = _sampling(across, *warp[:2])
        rows, row_inside = _sampling(across, *warp[2:])
        warped = rows @ moving @ columns.T
        inside = row_inside[:, None] & column_inside
        best = max(best, _correlation(fixed[inside], warped[inside]))
        if step == STEPS or (step == STEPS // 2 and best < HOPELESS):
            break
        down, right = (slope * side / 2 for slope in np.gradient(warped))
        terms = (right * across, right, down * across[:, None], down, warped, np.ones_like(warped))
        slopes = np.stack([term[inside] for term in terms])
        normal = slopes @ slopes.T
        normal += RIDGE * np.trace(normal) * np.eye(len(terms))
        warp = np.clip(
            warp + np.linalg.solve(normal, slopes @ (fixed - warped)[inside])[:4], -FARTHEST, FARTHEST
        )
    return best


def _candidates(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Iterator[tuple[int, int, int]]:
    """Indices (of the first, of the second, of the symmetry) of pairs whose coarse thumbnails correlate."""
    (rows, left), (columns, right) = _coarse(first), _coarse(second)
    eight = [turned(right, symmetry).reshape(-1, COARSE_SIDE**2) for symmetry in range(len(SYMMETRIES))]
    for start in range(0, len(left), CHUNK):
        vectors = left[start : start + CHUNK].reshape(-1, COARSE_SIDE**2)
        for symmetry, others in enumerate(eight):
            for i, j in np.argwhere(vectors @ others.T >= COARSE):
                yield int(rows[start + i]), int(columns[j]), symmetry


def _coarse(images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indices [n] of the images that have contrast, and their coarse thumbnails [n, 16, 16] of norm 1."""
    kept, coarse = [np.zeros(0, np.int64)], [np.zeros((0, COARSE_SIDE, COARSE_SIDE), np.float32)]
    for start in range(0, len(images), CHUNK):
        smooth = _smoothed(images[start : start + CHUNK])
        some = np.flatnonzero(_without_plane(smooth).std((1, 2)) >= CONTRAST)
        blocks = smooth[some].reshape(-1, COARSE_SIDE, SIDE // COARSE_SIDE, COARSE_SIDE, SIDE // COARSE_SIDE)
        flat = _without_plane(blocks.mean((2, 4)))
        kept.append(some + start)
        coarse.append(flat / np.maximum(np.sqrt((flat**2).sum((1, 2), keepdims=True)), 1e-6))
    return np.concatenate(kept), np.concatenate(coarse)


def _smoothed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images [n, S, S] less what a resize or a strong JPEG takes away: binomial weights 1 2 1 along both
    axes.
    """
    padded = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1)), "edge")
    down = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return np.asarray((down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]) / 16, dtype=np.float32)


def _without_plane(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Images [n, S, S] less the plane that fits each best."""
    across = np.linspace(-1, 1, images.shape[-1], dtype=np.float32)
    mean = images.mean((1, 2), keepdims=True)
    weights = across / (across**2).sum() / len(across)
    right = (images.sum(1) @ weights)[:, None, None] * across
    down = (images.sum(2) @ weights)[:, None, None] * across[:, None]
    return images - mean - right - down


def _sampling(
    across: NDArray[np.float64], scale: float, shift: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Weights [S, S] that read a line at (1 + scale) x + shift by linear interpolation, and which of these
    places [S] are on it.
    """
    side = len(across)
    places = ((1 + scale) * across + shift + 1) * side / 2 - 0.5
    inside = (places >= -0.5) & (places <= side - 0.5)
    return np.maximum(0, 1 - np.abs(places.clip(0, side - 1)[:, None] - np.arange(side))), inside


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    left, right = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / norm if norm > 0 else 0.0
