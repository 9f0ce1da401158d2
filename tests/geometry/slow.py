"""Slow witnesses for the geometry: polygons by GEOS and in rational numbers, plain loops over pairs, bins and
samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from shapely import Polygon
from torch import Tensor


def polygon(box: Sequence[float]) -> Polygon:
    """The rectangle (cx, cy, w, h, degrees counter-clockwise as seen, y down)."""
    cx, cy, w, h, angle = box
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    corners = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
    return Polygon([(cx + x * cos + y * sin, cy - x * sin + y * cos) for x, y in corners])


def polygon_iou(a: Tensor, b: Tensor) -> float:
    """IoU of two boxes [5] by GEOS. It may miss a whole intersection where edges nearly lie on each other:
    see :func:`exact_iou`.
    """
    p, q = polygon(a.tolist()), polygon(b.tolist())
    shared = p.intersection(q).area
    return shared / (p.area + q.area - shared)


def exact_iou(a: Tensor, b: Tensor) -> float:
    """IoU of two boxes [5]: corners in float64, then a cut along each edge of the other (Sutherland, Hodgman,
    1974) in rational numbers.
    """
    origin = a[:2].double()
    p, q = (
        [
            (Fraction(x), Fraction(y))
            for x, y in polygon([*(box[:2].double() - origin).tolist(), *box[2:].tolist()]).exterior.coords[
                :-1
            ]
        ]
        for box in (a, b)
    )
    shared = p
    for (x1, y1), (x2, y2) in zip(q, q[1:] + q[:1], strict=True):
        side = [(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in shared]
        kept = []
        for here, there, s, t in zip(shared, shared[1:] + shared[:1], side, side[1:] + side[:1], strict=True):
            if s >= 0:
                kept.append(here)
            if s * t < 0:
                kept.append(
                    (
                        here[0] + (there[0] - here[0]) * s / (s - t),
                        here[1] + (there[1] - here[1]) * s / (s - t),
                    )
                )
        shared = kept
    common, union = area(shared), area(p) + area(q) - area(shared)
    return float(common / union) if union else 0.0


def area(points: list[tuple[Fraction, Fraction]]) -> Fraction:
    """Area of a polygon whose corners go clockwise as seen (y down)."""
    return (
        sum(
            ((x1 * y2 - x2 * y1) for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True)),
            Fraction(0),
        )
        / 2
    )


def greedy(iou: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> list[int]:
    """Kept indices, best first, from the full matrix of IoUs [N, N]."""
    kept: list[int] = []
    too_much, label = (iou >= threshold).tolist(), labels.tolist()
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        if not any(label[i] == label[k] and too_much[i][k] for k in kept):
            kept.append(i)
    return kept


def roi_align(features: Tensor, rois: Tensor, bins: tuple[int, int], scale: float, sampling: int) -> Tensor:
    """Rotated RoIAlign sample by sample."""
    result = torch.zeros(len(rois), features.shape[1], *bins, dtype=features.dtype)
    for n, (image, *box) in enumerate(rois.tolist()):
        cx, cy, w, h = (value * scale for value in box[:4])
        cos, sin = math.cos(math.radians(box[4])), math.sin(math.radians(box[4]))
        rows = sampling or math.ceil(h / bins[0])
        columns = sampling or math.ceil(w / bins[1])
        for i in range(bins[0] * rows):
            for j in range(bins[1] * columns):
                across, along = (
                    ((i + 0.5) / (bins[0] * rows) - 0.5) * h,
                    ((j + 0.5) / (bins[1] * columns) - 0.5) * w,
                )
                x, y = cx - 0.5 + along * cos + across * sin, cy - 0.5 - along * sin + across * cos
                result[n, :, i // rows, j // columns] += bilinear(features[int(image)], x, y) / (
                    rows * columns
                )
    return result


def bilinear(features: Tensor, x: float, y: float) -> Tensor:
    """Features [C] of a map [C, H, W] at a point; the border's value up to one pixel outside, 0 beyond."""
    height, width = features.shape[1:]
    if not (-1 <= x <= width and -1 <= y <= height):
        return torch.zeros(features.shape[0], dtype=features.dtype)
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    upper = features[:, top, left] * (left + 1 - x) + features[:, top, right] * (x - left)
    lower = features[:, bottom, left] * (left + 1 - x) + features[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def scattered(count: int, size: float, seed: int, smallest: float = 4, largest: float = 120) -> Tensor:
    """Boxes [count, 5] all over a square of ``size`` pixels, of any aspect and angle."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(count, 5, generator=generator)
    sides = smallest * (largest / smallest) ** u[:, 2:4]
    return torch.cat([u[:, :2] * size, sides, u[:, 4:] * 180 - 90], 1)


def clustered(count: int, objects: int, size: float, seed: int) -> Tensor:
    """Boxes [count, 5] that lie on ``objects`` objects, as detections do."""
    generator = torch.Generator().manual_seed(seed)
    boxes = scattered(objects, size, seed)[torch.randint(objects, (count,), generator=generator)]
    noise = torch.randn(count, 5, generator=generator)
    center = boxes[:, :2] + 0.1 * noise[:, :2] * boxes[:, 2:4].amin(1, keepdim=True)
    return torch.cat(
        [center, boxes[:, 2:4] * torch.exp(0.1 * noise[:, 2:4]), boxes[:, 4:] + 4 * noise[:, 4:]], 1
    )
