"""Slow witnesses for the box coders: one box at a time, in complex numbers (x + iy, y down: the side w runs
along exp(-i angle)).
"""

from __future__ import annotations

import cmath
import math

import torch

from dbf_ray.geometry import boxes_to_corners


def names(box: list[float]) -> list[tuple[float, float, float]]:
    """All (w, h, angle) of one rectangle with angles within two turns."""
    _, _, w, h, angle = box
    return [(w, h, angle + 90 * k) if k % 2 == 0 else (h, w, angle + 90 * k) for k in range(-8, 9)]


def slow_encode_rotated(anchor: list[float], box: list[float]) -> list[float]:
    local = complex(box[0] - anchor[0], box[1] - anchor[1]) * cmath.exp(1j * math.radians(anchor[4]))
    w, h, angle = min(names(box), key=lambda name: abs(name[2] - anchor[4]))
    turn = math.radians(anchor[4] - angle)
    return [
        local.real / anchor[2],
        local.imag / anchor[3],
        math.log(w / anchor[2]),
        math.log(h / anchor[3]),
        turn,
    ]


def slow_decode_rotated(anchor: list[float], deltas: list[float]) -> list[float]:
    x, y, w, h, turn = deltas
    center = complex(anchor[0], anchor[1]) + complex(x * anchor[2], y * anchor[3]) * cmath.exp(
        -1j * math.radians(anchor[4])
    )
    w, h = (max(min(value, math.log(1000 / 16)), -math.log(1000 / 16)) for value in (w, h))
    return [
        center.real,
        center.imag,
        anchor[2] * math.exp(w),
        anchor[3] * math.exp(h),
        anchor[4] - math.degrees(turn),
    ]


def slow_decode_midpoint(anchor: list[float], deltas: list[float]) -> list[float]:
    """The corners of the rectangle, whose smallest enclosing rectangle it is itself."""
    upright = [
        (anchor[0] + anchor[2]) / 2,
        (anchor[1] + anchor[3]) / 2,
        anchor[2] - anchor[0],
        anchor[3] - anchor[1],
        0.0,
    ]
    x, y, w, h, _ = slow_decode_rotated(upright, [*deltas[:4], 0.0])
    top_offset, right_offset = (max(-0.5, min(0.5, value)) for value in deltas[4:])
    top, right = complex(top_offset * w, -h / 2), complex(w / 2, right_offset * h)
    radius = max(abs(top), abs(right))
    top, right = (cmath.rect(radius, cmath.phase(half)) for half in (top, right))
    corners = [complex(x, y) + half for half in (top, right, -top, -right)]
    return [part for corner in corners for part in (corner.real, corner.imag)]


def upright_within(box: list[float], level: float) -> bool:
    """Whether the sides of a box rise or lean no more than ``level`` pixels."""
    _, _, w, h, angle = box
    rise = min(abs(math.sin(math.radians(angle))), abs(math.cos(math.radians(angle))))
    return max(w, h) * rise <= level


def slow_encode_midpoint(anchor: list[float], box: list[float]) -> list[float]:
    flat = boxes_to_corners(torch.tensor([box], dtype=torch.float64))[0].tolist()
    corners = list(zip(flat[::2], flat[1::2], strict=True))
    left, upper = min(x for x, _ in corners), min(y for _, y in corners)
    right, lower = max(x for x, _ in corners), max(y for _, y in corners)
    x, y, w, h = (left + right) / 2, (upper + lower) / 2, right - left, lower - upper
    level = 0.1 if upright_within(box, 0.1) else 0.0
    top_x = max(x for x, y in corners if y - upper <= level)
    right_y = max(y for x, y in corners if right - x <= level)
    px, py, pw, ph = (
        (anchor[0] + anchor[2]) / 2,
        (anchor[1] + anchor[3]) / 2,
        anchor[2] - anchor[0],
        anchor[3] - anchor[1],
    )
    return [
        (x - px) / pw,
        (y - py) / ph,
        math.log(w / pw),
        math.log(h / ph),
        (top_x - x) / w,
        (right_y - y) / h,
    ]


def slow_encode_distances(point: list[float], box: list[float]) -> list[float]:
    """Distances to the lines through the sides, from the corners."""
    flat = boxes_to_corners(torch.tensor([box], dtype=torch.float64))[0].tolist()
    # clockwise from the top left one at angle 0
    corners = [complex(x, y) for x, y in zip(flat[::2], flat[1::2], strict=True)]
    away = []
    for k in range(4):
        along = corners[(k + 1) % 4] - corners[k]
        away.append(((complex(*point) - corners[k]) * along.conjugate()).imag / abs(along))
    top, right, bottom, left = away
    return [left, top, right, bottom, -math.radians(box[4])]
