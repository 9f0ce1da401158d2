from __future__ import annotations

import math

import numpy as np
import pytest

from dbf_ray.data.scenes.drawing import (
    Canvas,
    Pose,
    convex,
    cosine,
    disc,
    quantise,
    rectangle,
    sine,
    smooth_noise,
)
from dbf_ray.data.seeds import Stream


def test_table_is_rounded_trigonometry() -> None:
    for step in range(-720, 1440):
        assert cosine(step) == pytest.approx(math.cos(math.radians(step / 2)), abs=2**-17 + 1e-9)
        assert sine(step) == pytest.approx(math.sin(math.radians(step / 2)), abs=2**-17 + 1e-9)
        assert (cosine(step) * 65536).is_integer()
    assert [cosine(step) for step in (0, 180, 360, 540)] == [1, 0, -1, 0]
    # No entry is so near the middle between two multiples that another C library could round it otherwise.
    distances = [abs(math.cos(math.radians(step / 2)) * 65536 % 1 - 0.5) for step in range(720)]
    assert min(distances) > 1e-6


def test_frame_follows_the_box_convention() -> None:
    pose = Pose(50, 40, 60)  # 30 degrees counter-clockwise: ahead is right and up
    x, y = pose.at(20, 0)
    assert (x, y) == pytest.approx((50 + 20 * math.cos(math.radians(30)), 40 - 10), abs=1 / 16)
    assert quantise(x) == x
    frame = Canvas(80, 100).frame(pose, 30, 10)
    assert frame is not None
    row, column = int(y) - frame.top, int(x) - frame.left
    assert frame.u[row, column] == pytest.approx(20, abs=1)
    assert frame.v[row, column] == pytest.approx(0, abs=1)


@pytest.mark.parametrize("angle", [0, 37, 180, 333, 719])
def test_covers_have_the_exact_area(angle: int) -> None:
    frame = Canvas(120, 120).frame(Pose(60.25, 59.5, angle), 45, 45)
    assert frame is not None
    assert rectangle(frame, 20, 7.5).sum() == pytest.approx(40 * 15, rel=0.01)
    assert disc(frame, 25).sum() == pytest.approx(math.pi * 625, rel=0.01)
    triangle = convex(frame.u, frame.v, [(-20, -15), (20, -15), (0, 25)])
    assert triangle.sum() == pytest.approx(800, rel=0.02)
    hexagon = [
        (round(20 * math.cos(k * math.pi / 3), 3), round(20 * math.sin(k * math.pi / 3), 3)) for k in range(6)
    ]
    assert convex(frame.u, frame.v, hexagon).sum() == pytest.approx(1.5 * math.sqrt(3) * 400, rel=0.01)


def test_frame_outside_is_none_and_blend_is_clipped() -> None:
    canvas = Canvas(20, 30)
    assert canvas.frame(Pose(-50, 5), 10, 10) is None
    frame = canvas.frame(Pose(2, 2), 5, 5)
    assert frame is not None
    canvas.blend(frame, np.ones_like(frame.u), (10, 20, 30), shift=(-3, -3))
    assert canvas.pixels[:, 0, 0].tolist() == [10, 20, 30]
    canvas.blend(frame, np.ones_like(frame.u), (200, 200, 200), shift=(-100, 0))
    assert canvas.pixels.max() == 30


@pytest.mark.parametrize("cell", [5, 64, 256])
def test_smooth_noise_interpolates_its_grid_exactly(cell: int) -> None:
    noise = smooth_noise(Stream(1), 130, 70, cell)
    rows, columns = -(-130 // cell) + 1, -(-70 // cell) + 1
    grid = Stream(1).octets(rows, columns).astype(int)
    for y, x in [(0, 0), (129, 69), (64, 64), (13, 37), (cell % 130, 0)]:
        (i, fy), (j, fx) = divmod(y, cell), divmod(x, cell)
        total = 0
        for row, wy in ((i, cell - fy), (i + 1, fy)):
            for column, wx in ((j, cell - fx), (j + 1, fx)):
                total += wy * wx * (grid[row, column] if wy * wx else 0)
        assert noise[y, x] == np.float32(total) / np.float32(cell * cell)
