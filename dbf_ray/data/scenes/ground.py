"""The ground of the generated scenes: land, fields, water and coast, and who has taken which part of it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dbf_ray.data.scenes.drawing import (
    Array,
    Canvas,
    Colour,
    Frame,
    Pose,
    clamp,
    cosine,
    rectangle,
    sine,
    smooth_noise,
)
from dbf_ray.data.seeds import Stream

LAND: list[tuple[Colour, Colour]] = [
    ((92, 108, 66), (120, 122, 82)),
    ((132, 118, 92), (104, 110, 76)),
    ((150, 144, 130), (122, 116, 100)),
    ((78, 96, 62), (96, 84, 64)),
    ((168, 150, 116), (146, 128, 98)),
]
WATER: list[Colour] = [(34, 62, 82), (28, 52, 64), (48, 84, 92), (22, 44, 70), (58, 78, 72)]
FIELDS: list[Colour] = [
    (110, 124, 66),
    (86, 106, 56),
    (150, 136, 90),
    (126, 104, 76),
    (98, 116, 84),
    (170, 156, 104),
]
CELL = 4


class Ground:
    """The painted ground of one scene, with a map of water and of taken places in cells of 4 x 4 pixels."""

    def __init__(self, canvas: Canvas, stream: Stream) -> None:
        self.canvas, self.stream = canvas, stream
        shape = (-(-canvas.height // CELL), -(-canvas.width // CELL))
        self.water: NDArray[np.bool_] = np.zeros(shape, bool)
        self.taken: NDArray[np.bool_] = np.zeros(shape, bool)
        self.coast: Pose | None = None
        self.paint_land()

    def paint_land(self) -> None:
        """Two colours mixed by coarse noise, roughened by fine noise."""
        canvas, stream = self.canvas, self.stream
        first, second = stream.choice(LAND)
        coarse = smooth_noise(stream, canvas.height, canvas.width, stream.choice([48, 80, 120]))
        fine = smooth_noise(stream, canvas.height, canvas.width, 6)
        fine -= np.float32(127)
        fine *= np.float32(stream.between(6, 20) / 127)
        for channel in range(3):
            plane = canvas.pixels[channel]
            np.multiply(coarse, np.float32((second[channel] - first[channel]) / 255), out=plane)
            plane += np.float32(first[channel])
            plane += fine

    def paint_fields(self) -> None:
        """A patchwork of fields, some ploughed in lines, over the whole land."""
        canvas, stream = self.canvas, self.stream
        angle = stream.below(720)
        frame = _whole(canvas, Pose(canvas.width / 2, canvas.height / 2, angle))
        long, wide = stream.between(90, 170), stream.between(60, 120)
        column = np.floor(frame.u / np.float32(long)).astype(np.int32)
        row = np.floor(frame.v / np.float32(wide)).astype(np.int32)
        kind = (column * 7 + row * 13) & 15
        lines = np.floor(frame.v * np.float32(0.4)).astype(np.int32) & 1
        colours = [stream.choice(FIELDS) for _ in range(16)]
        ploughed = np.array([10 if stream.chance(50) else 2 for _ in range(16)], np.float32)[kind] * lines
        for channel in range(3):
            table = np.array([colour[channel] for colour in colours], np.float32)
            canvas.pixels[channel] = canvas.pixels[channel] * np.float32(0.3) + (
                table[kind] * np.float32(0.7) - ploughed
            )

    def paint_water(self, share: int, roughness: int) -> None:
        """A sea beyond a coast that leaves about ``share`` percent of the picture to the water;
        ``roughness``: pixels it strays.
        """
        canvas, stream = self.canvas, self.stream
        angle = stream.below(720)
        cos, sin = cosine(angle), sine(angle)
        reach = (abs(cos) * canvas.width + abs(sin) * canvas.height) / 2
        middle = reach * (50 - share) / 50
        # The coast's frame: u points out to sea, v runs along the shore.
        self.coast = Pose(canvas.width / 2, canvas.height / 2, angle).moved(middle, 0)
        frame = _whole(canvas, self.coast)
        bend = smooth_noise(stream, canvas.height, canvas.width, 64)
        shore = frame.u + (bend - np.float32(127)) * np.float32(roughness / 127)
        cover = clamp(shore + np.float32(0.5), 1)
        beach = clamp(shore * np.float32(0.25) + np.float32(2), 1) * np.float32(0.7)
        waves = smooth_noise(stream, canvas.height, canvas.width, 5)
        deep, sand = stream.choice(WATER), stream.choice([(190, 176, 142), (150, 146, 138), (120, 112, 92)])
        # 26 levels brighter at the shore, deep from 60 pixels on
        surface = clamp(shore * np.float32(26 / 60), 26)
        surface = (waves - np.float32(127)) * np.float32(stream.between(3, 12) / 127) - surface
        for channel in range(3):
            plane = canvas.pixels[channel]
            plane += (np.float32(sand[channel]) - plane) * beach
            plane += (surface + np.float32(deep[channel] + 26) - plane) * cover
        self.water = shore[CELL // 2 :: CELL, CELL // 2 :: CELL] > 0
        pad = [(0, self.taken.shape[axis] - self.water.shape[axis]) for axis in (0, 1)]
        self.water = np.pad(self.water, pad, mode="edge")

    def fits(self, pose: Pose, length: float, width: float, water: bool = False, margin: float = 3) -> bool:
        """Whether a rectangle lies, as far as it is in the picture, on free cells of land (or of water)."""
        found = self._cells(pose, length + 2 * margin, width + 2 * margin)
        if found is None:
            return False
        rows, columns, inside = found
        return bool(inside.any()) and not bool(
            (inside & (self.taken[rows, columns] | (self.water[rows, columns] != water))).any()
        )

    def take(self, pose: Pose, length: float, width: float) -> None:
        """Mark a rectangle as taken."""
        found = self._cells(pose, length, width)
        if found is not None:
            rows, columns, inside = found
            self.taken[rows, columns] |= inside

    def pave(self, pose: Pose, length: float, width: float, colour: Colour, opacity: float = 1.0) -> None:
        """Paint a rectangle of ground."""
        frame = self.canvas.frame(pose, length / 2, width / 2)
        if frame is not None:
            cover = rectangle(frame, length / 2, width / 2)
            self.canvas.blend(frame, cover if opacity == 1 else cover * np.float32(opacity), colour)

    def _cells(
        self, pose: Pose, length: float, width: float
    ) -> tuple[slice, slice, NDArray[np.bool_]] | None:
        cos, sin = cosine(pose.angle), sine(pose.angle)
        x, y, half_u, half_v = pose.x / CELL, pose.y / CELL, length / 2 / CELL, width / 2 / CELL
        reach_x, reach_y = abs(cos) * half_u + abs(sin) * half_v, abs(sin) * half_u + abs(cos) * half_v
        rows = slice(max(0, math.floor(y - reach_y)), max(0, math.ceil(y + reach_y)))
        columns = slice(max(0, math.floor(x - reach_x)), max(0, math.ceil(x + reach_x)))
        shape = self.taken[rows, columns].shape
        if not all(shape):
            return None
        dx = (np.arange(shape[1]) + (columns.start + 0.5 - x))[None, :]
        dy = (np.arange(shape[0]) + (rows.start + 0.5 - y))[:, None]
        inside = (np.abs(dx * cos - dy * sin) <= half_u + 0.25) & (
            np.abs(dx * sin + dy * cos) <= half_v + 0.25
        )
        return rows, columns, inside


def add_light_and_grain(canvas: Canvas, stream: Stream) -> Array:
    """Finish the canvas in place: light and contrast of the day, and the sensor's noise; float32 [3, H, W]
    within 0..255.
    """
    strength = np.float32(stream.between(4, 14) / 255)
    grain = stream.octets(canvas.height, canvas.width).astype(np.float32)
    grain *= strength
    grain += np.float32(stream.between(-6, 14)) - np.float32(127) * strength
    gain = stream.between(80, 112) / 100
    for channel in range(3):
        plane = canvas.pixels[channel]
        plane *= np.float32(gain * stream.between(95, 105) / 100)
        plane += grain
    return clamp(canvas.pixels, 255)


def _whole(canvas: Canvas, pose: Pose) -> Frame:
    reach = float(canvas.width + canvas.height)
    frame = canvas.frame(Pose(canvas.width / 2, canvas.height / 2), reach, reach)
    assert frame is not None
    x, y = (
        frame.u[:1] + np.float32(canvas.width / 2 - pose.x),
        frame.v[:, :1] + np.float32(canvas.height / 2 - pose.y),
    )
    cos, sin = np.float32(cosine(pose.angle)), np.float32(sine(pose.angle))
    return Frame(0, 0, x * cos - y * sin, x * sin + y * cos)
