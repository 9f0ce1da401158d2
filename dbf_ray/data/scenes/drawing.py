"""A small anti-aliased painter whose every pixel is the same on every machine.

Only additions, multiplications, divisions, square roots, minima and roundings of single float32 numbers are
used, element by element: IEEE 754 fixes each of their results. Sines and cosines come from a table rounded to
multiples of 2**-16, and matrix products only ever see integers small enough to be exact, so neither the C
library nor the order of sums can change a pixel. No drawing library, no fonts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dbf_ray.data.seeds import Stream

Array = NDArray[np.float32]
Colour = tuple[int, int, int]

STEPS_PER_DEGREE = 2
_TURN = 360 * STEPS_PER_DEGREE
_ONE = 65536
_COS = [round(math.cos(2 * math.pi * step / _TURN) * _ONE) / _ONE for step in range(_TURN)]


def cosine(angle: int) -> float:
    """Cosine of an angle in half degrees, a multiple of 2**-16."""
    return _COS[angle % _TURN]


def sine(angle: int) -> float:
    """Sine of an angle in half degrees, a multiple of 2**-16."""
    return _COS[(angle - _TURN // 4) % _TURN]


@dataclass(frozen=True)
class Pose:
    """Where an object lies: centre in pixels and angle in half degrees, counter-clockwise as seen (y points
    down).
    """

    x: float
    y: float
    angle: int = 0

    def at(self, u: float, v: float) -> tuple[float, float]:
        """Image coordinates, in sixteenths of a pixel, of the point (u, v) in the object's frame: u ahead, v
        to its right.
        """
        cos, sin = cosine(self.angle), sine(self.angle)
        return quantise(self.x + u * cos + v * sin), quantise(self.y - u * sin + v * cos)

    def moved(self, u: float, v: float, turn: int = 0) -> Pose:
        """The pose at (u, v) in this one's frame, turned by half degrees."""
        return Pose(*self.at(u, v), (self.angle + turn) % _TURN)


def quantise(value: float) -> float:
    """Round to sixteenths of a pixel, which float32 and every product here hold exactly."""
    return math.floor(value * 16 + 0.5) / 16


@dataclass(frozen=True)
class Frame:
    """The pixels around an object: rows and columns of its window, and its own coordinates (u, v) of each
    pixel's centre.
    """

    top: int
    left: int
    u: Array
    v: Array


class Canvas:
    """A picture [3, H, W] in float32 (0..255) to paint on."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.pixels: Array = np.zeros((3, height, width), np.float32)

    def frame(self, pose: Pose, half_u: float, half_v: float) -> Frame | None:
        """The window that holds a rectangle of these half sides and one pixel around it; None where it lies
        outside the picture.
        """
        cos, sin = cosine(pose.angle), sine(pose.angle)
        reach_x = abs(cos) * half_u + abs(sin) * half_v + 1
        reach_y = abs(sin) * half_u + abs(cos) * half_v + 1
        left, right = max(0, math.floor(pose.x - reach_x)), min(self.width, math.ceil(pose.x + reach_x))
        top, bottom = max(0, math.floor(pose.y - reach_y)), min(self.height, math.ceil(pose.y + reach_y))
        if left >= right or top >= bottom:
            return None
        dx = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - pose.x))[None, :]
        dy = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - pose.y))[:, None]
        return Frame(
            top,
            left,
            dx * np.float32(cos) - dy * np.float32(sin),
            dx * np.float32(sin) + dy * np.float32(cos),
        )

    def blend(
        self, frame: Frame, cover: Array, colour: Colour | Array, shift: tuple[int, int] = (0, 0)
    ) -> None:
        """Paint a colour (or a [3, h, w] picture) through ``cover`` [h, w] in 0..1 onto a frame's window,
        moved by (x, y) whole pixels.
        """
        height, width = cover.shape
        left, top = frame.left + shift[0], frame.top + shift[1]
        x0, x1 = max(0, left), min(self.width, left + width)
        y0, y1 = max(0, top), min(self.height, top + height)
        if x0 >= x1 or y0 >= y1:
            return
        part = cover[y0 - top : y1 - top, x0 - left : x1 - left]
        if isinstance(colour, tuple):
            paint = np.array(colour, np.float32)[:, None, None]
        else:
            paint = colour[:, y0 - top : y1 - top, x0 - left : x1 - left]
        view = self.pixels[:, y0:y1, x0:x1]
        change = paint - view
        change *= part
        view += change


def rectangle(frame: Frame, half_u: float, half_v: float, u0: float = 0.0, v0: float = 0.0) -> Array:
    """Cover of a rectangle centred on (u0, v0) in the object's frame."""
    u = frame.u - np.float32(u0) if u0 else frame.u
    v = frame.v - np.float32(v0) if v0 else frame.v
    return _ramp(np.float32(half_u) - np.abs(u)) * _ramp(np.float32(half_v) - np.abs(v))


def disc(frame: Frame, radius: float, u0: float = 0.0, v0: float = 0.0) -> Array:
    """Cover of a disc centred on (u0, v0) in the object's frame."""
    u, v = frame.u - np.float32(u0), frame.v - np.float32(v0)
    return _ramp(np.float32(radius) - np.sqrt(u * u + v * v))


def convex(u: Array, v: Array, points: Sequence[tuple[float, float]]) -> Array:
    """Cover of a convex polygon whose points go round so that its inside lies where (u, v) has a positive
    cross product with each edge.
    """
    inside: Array | None = None
    for (u0, v0), (u1, v1) in zip(points, [*points[1:], points[0]], strict=True):
        du, dv = u1 - u0, v1 - v0
        length = math.sqrt(du * du + dv * dv)
        nu, nv = np.float32(-dv / length), np.float32(du / length)
        distance = u * nu + (v * nv - (np.float32(u0) * nu + np.float32(v0) * nv))
        inside = distance if inside is None else np.minimum(inside, distance)
    assert inside is not None
    return _ramp(inside)


def _ramp(distance: Array) -> Array:
    """Share of a pixel that is covered, by the signed distance of its centre from the edge."""
    cover = distance + np.float32(0.5)
    return clamp(cover, 1)


def clamp(values: Array, high: int) -> Array:
    """Bring ``values`` into 0..high, in place."""
    np.maximum(values, np.float32(0), out=values)
    return np.minimum(values, np.float32(high), out=values)


def smooth_noise(stream: Stream, height: int, width: int, cell: int) -> Array:
    """Noise [H, W] in 0..255 that varies over about ``cell`` pixels: a random grid, interpolated linearly
    with integer weights.
    """
    assert cell <= 256, "larger cells are not exact"
    rows, columns = -(-height // cell) + 1, -(-width // cell) + 1
    grid = stream.octets(rows, columns).astype(np.float32)
    # integers below 2**24: exact in float32, whatever the order of the sums
    rows_picked = _interpolation(height, cell, rows) @ grid
    noise = np.asarray(rows_picked @ _interpolation(width, cell, columns).T, np.float32)
    noise /= np.float32(cell * cell)
    return noise


def _interpolation(size: int, cell: int, count: int) -> Array:
    """Weights [size, count], integers that sum to ``cell`` in each row."""
    position = np.arange(size)
    weights = np.zeros((size, count), np.float32)
    weights[position, position // cell] = cell - position % cell
    weights[position, position // cell + 1] += position % cell
    return weights
