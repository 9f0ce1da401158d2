"""What the generated scenes are made of: car parks, tank farms, aprons, ports, roads, and a record of each
labelled object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dbf_ray.data.scenes.drawing import Canvas, Colour, Pose, quantise
from dbf_ray.data.scenes.ground import Ground
from dbf_ray.data.scenes.objects import CLASSES, PAINTERS, Painter, paint_building, paint_tree
from dbf_ray.data.seeds import Stream

ASPHALT: list[Colour] = [(84, 84, 88), (104, 104, 106), (70, 72, 76), (120, 118, 114)]
CONCRETE: list[Colour] = [(158, 156, 150), (140, 140, 138), (172, 168, 158)]
QUARTER_TURN, HALF_TURN = 180, 360

SMALLEST_VISIBLE = 10  # percent of an object inside the picture; with less it is not painted
WHOLE_ENOUGH = 50  # percent; with less it is difficult
TINY = 14  # pixels of the long side; shorter objects are difficult


@dataclass
class Scene:
    """A picture in the making, and the boxes (x, y, length, width, degrees), labels and difficult flags of
    what is on it.
    """

    canvas: Canvas
    stream: Stream
    ground: Ground
    painter: Painter
    boxes: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)

    def put(self, name: str, pose: Pose, length: float, width: float) -> None:
        """Paint and record one object; one that is nearly outside the picture is neither painted nor
        recorded.
        """
        visible = _visible_percent(self.canvas, pose, length, width)
        if visible < SMALLEST_VISIBLE:
            return
        faint = self.stream.chance(3)
        self.painter.opacity = self.stream.between(22, 34) / 100 if faint else 1.0
        PAINTERS[name](self.painter, pose, length, width)
        self.painter.opacity = 1.0
        self.boxes.append((pose.x, pose.y, length, width, pose.angle / 2))
        self.labels.append(CLASSES.index(name))
        self.difficult.append(faint or visible < WHOLE_ENOUGH or max(length, width) < TINY)

    def times(self, count: int) -> int:
        """A count meant for 384 x 384 pixels, scaled to this picture's area, at least 1."""
        return max(1, (count * self.canvas.height * self.canvas.width + 384 * 192) // (384 * 384))

    def anywhere(self, margin: int = 0) -> Pose:
        """A random pose; its centre may be up to ``margin`` pixels outside the picture."""
        x = self.stream.between(-margin, self.canvas.width + margin)
        y = self.stream.between(-margin, self.canvas.height + margin)
        return Pose(x, y, self.stream.below(720))

    def near(self, pose: Pose, distance: int) -> bool:
        """Whether an object of another heading is centred within ``distance`` pixels in x and y: crossing
        traffic.
        """
        heading = pose.angle / 2 % 180
        return any(
            abs(x - pose.x) < distance and abs(y - pose.y) < distance and turn % 180 != heading
            for x, y, _, _, turn in self.boxes
        )

    def find(
        self,
        length: float,
        width: float,
        water: bool = False,
        margin: int = -8,
        along: int | None = None,
        tries: int = 14,
    ) -> Pose | None:
        """A free place for a rectangle, then taken; None where none was found. ``along``: keep to this angle,
        or across it.
        """
        for _ in range(tries):
            pose = self.anywhere(margin)
            if along is not None:
                pose = Pose(pose.x, pose.y, along + QUARTER_TURN * self.stream.below(4))
            if self.ground.fits(pose, length, width, water):
                self.ground.take(pose, length, width)
                return pose
        return None


def car_park(scene: Scene, along: int | None = None, large: bool = False) -> None:
    """Rows of parked cars, or of lorries, side by side with some gaps."""
    stream = scene.stream
    pitch, depth = (
        (stream.between(22, 26), stream.between(68, 78))
        if large
        else (stream.between(18, 22), stream.between(37, 42))
    )
    rows, columns = (
        stream.between(1, 2 if large else 3),
        stream.between(2, 6) if large else stream.between(3, 10),
    )
    aisle = depth // 2
    length, width = columns * pitch + 8, rows * depth + (rows - 1) * aisle + 8
    pose = scene.find(length, width, along=along)
    if pose is None:
        return
    scene.ground.pave(pose, length, width, scene.painter.pick(ASPHALT))
    lines = stream.chance(60)
    occupied = stream.between(55, 95)
    for row in range(rows):
        v = -width / 2 + 4 + depth / 2 + row * (depth + aisle)
        for column in range(columns):
            u = -length / 2 + 4 + pitch * (column + 0.5)
            if lines:
                scene.ground.pave(pose.moved(u + pitch / 2, v), 1.2, depth - 2, (206, 206, 200), 0.7)
            if stream.chance(occupied):
                slot = pose.moved(
                    u,
                    v + stream.between(-2, 2),
                    QUARTER_TURN + HALF_TURN * stream.below(2) + stream.between(-4, 4),
                )
                vehicle(scene, slot, large)


def vehicle(scene: Scene, pose: Pose, large: bool) -> None:
    """A car, or a lorry or bus."""
    stream = scene.stream
    if large:
        scene.put("large_vehicle", pose, stream.between(46, 66), stream.between(14, 18))
    else:
        length = stream.between(25, 34)
        scene.put("vehicle", pose, length, min(15, quantise(length * 0.46)))


def roads(scene: Scene, poses: Sequence[Pose], traffic: int) -> None:
    """Roads with two lanes right through the picture, and traffic on them (``traffic``: percent of the places
    along them).
    """
    stream, ground = scene.stream, scene.ground
    width = stream.between(40, 48)
    reach = 2 * (scene.canvas.width + scene.canvas.height)
    half = 3 * reach // 8  # farther than any corner is from any point of the picture
    dry = [pose for pose in poses if ground.coast is None or ground.fits(pose, reach, width)]
    colour, line = scene.painter.pick(ASPHALT), scene.painter.vary((206, 204, 186))
    for pose in dry:
        ground.take(pose, reach, width)
        ground.pave(pose, reach, width, colour)
    for pose in dry:
        for u in range(-half + stream.below(40), half, 30):
            ground.pave(pose.moved(u, 0), 12, 1.4, line, 0.8)
    for pose in dry:
        for lane in (-1, 1):
            _lane(scene, pose.moved(0, lane * width / 4, HALF_TURN if lane < 0 else 0), half, traffic)


def _lane(scene: Scene, pose: Pose, half: int, traffic: int) -> None:
    stream = scene.stream
    u = -half + stream.below(50)
    while u < half:
        large = stream.chance(28)
        spot = pose.moved(u, 0)
        if stream.chance(traffic) and not scene.near(spot, 72 if large else 46):
            vehicle(scene, spot, large)
        u += stream.between(80, 110) if large else stream.between(46, 100)


def tank_farm(scene: Scene, along: int | None = None) -> None:
    """Storage tanks of one size in rows, within a low wall."""
    stream = scene.stream
    radius = stream.between(9, 28)
    pitch = 2 * radius + stream.between(6, 14)
    columns, rows = stream.between(1, 4), stream.between(1, 3)
    if radius > 18:
        columns, rows = min(columns, 3), min(rows, 2)
    length, width = columns * pitch + 6, rows * pitch + 6
    pose = scene.find(length, width, along=along)
    if pose is None:
        return
    scene.ground.pave(pose, length, width, (206, 202, 190))
    scene.ground.pave(
        pose, length - 4, width - 4, scene.painter.pick([*CONCRETE, (134, 120, 98), (108, 116, 88)])
    )
    for row in range(rows):
        for column in range(columns):
            if stream.chance(90):
                size = 2 * radius - stream.below(5)
                spot = pose.moved(
                    (column + 0.5) * pitch - length / 2 + 3, (row + 0.5) * pitch - width / 2 + 3
                )
                scene.put("storage_tank", Pose(spot.x, spot.y), size, size)


def apron(scene: Scene, along: int | None = None) -> None:
    """Planes of one kind parked side by side on concrete, some in two rows tail to tail."""
    stream = scene.stream
    size = stream.between(34, 84)
    span = quantise(size * stream.between(84, 104) / 100)
    gap = stream.between(4, 14)
    columns, rows = (
        max(1, min(stream.between(2, 6), 340 // int(span + gap))),
        1 + stream.chance(35 if size < 56 else 10),
    )
    length, width = columns * (span + gap) + 8, rows * (size + 10) + 8
    pose = scene.find(length, width, along=along)
    if pose is None:
        return
    scene.ground.pave(pose, length, width, scene.painter.pick(CONCRETE))
    for row in range(rows):
        for column in range(columns):
            if stream.chance(85):
                spot = pose.moved(
                    (column + 0.5) * (span + gap) - length / 2 + 4, (row + 0.5) * (size + 10) - width / 2 + 4
                )
                heading = QUARTER_TURN + HALF_TURN * (row % 2) + stream.between(-8, 8)
                own = size - stream.below(4)
                scene.put("plane", spot.moved(0, 0, heading), own, min(span, quantise(own * span / size)))


def runway(scene: Scene, pose: Pose) -> None:
    """A runway right through the picture, with a plane or two on it."""
    stream, ground = scene.stream, scene.ground
    width = stream.between(64, 84)
    reach = 2 * (scene.canvas.width + scene.canvas.height)
    ground.take(pose, reach, width)
    ground.pave(pose, reach, width, scene.painter.pick(CONCRETE))
    ground.pave(pose, reach, width - 10, scene.painter.pick(ASPHALT))
    half = 3 * reach // 8
    for u in range(-half, half, 60):
        ground.pave(pose.moved(u, 0), 30, 2, (216, 216, 208), 0.8)
    u = -half + stream.between(40, 200)
    while u < half:
        size = stream.between(40, 76)
        scene.put(
            "plane",
            pose.moved(u, stream.between(-4, 4), HALF_TURN * stream.below(2)),
            size,
            quantise(size * stream.between(84, 100) / 100),
        )
        u += stream.between(180, 420)


def port(scene: Scene, marina: bool) -> None:
    """Piers out from the coast, ships moored along them, or boats side by side across them."""
    coast, stream = scene.ground.coast, scene.stream
    assert coast is not None
    half = (scene.canvas.width + scene.canvas.height) // 2
    v = -half + stream.below(80)
    while v < half:  # along the coast
        length, width = stream.between(64, 150), stream.between(12, 22)
        pier = coast.moved(length / 2 - stream.between(2, 12), v, 2 * stream.between(-6, 6))
        if stream.chance(82):
            scene.ground.take(pier, length, width)
            scene.put("harbor", pier, length, width)
            for side in (-1, 1):
                _moor(scene, pier, length, width, side, marina)
        v += stream.between(96, 150) if marina else stream.between(80, 140)


def _moor(scene: Scene, pier: Pose, length: float, width: float, side: int, marina: bool) -> None:
    stream = scene.stream
    size = stream.between(26, 42) if marina else stream.between(44, 100)
    beam = max(9, size // 3 if marina else quantise(size * stream.between(20, 26) / 100))
    gap = stream.between(4, 10)
    pitch = beam + gap if marina else size + 2 * gap
    u, end = -length / 2 + pitch / 2 + 10, length / 2 + (0 if marina else size / 3)
    occupied = stream.between(40, 90)
    while u < end:
        own = size - stream.below(max(2, size // 8))
        off = side * (width / 2 + 1.5 + (own if marina else beam) / 2)
        turn = (QUARTER_TURN if marina else 0) + HALF_TURN * stream.below(2) + stream.between(-3, 3)
        spot = pier.moved(u, off, turn)
        if stream.chance(occupied) and scene.ground.fits(spot, own, beam, water=True, margin=-2):
            scene.ground.take(spot, own, beam)
            scene.put("ship", spot, own, beam)
        u += pitch


def ships_at_sea(scene: Scene, count: int) -> None:
    """Single ships, some with a wake where the water behind them is free."""
    stream = scene.stream
    fleet = []
    for _ in range(count):
        length = stream.between(30, 110) if stream.chance(60) else stream.between(13, 36)
        beam = max(6, quantise(length * stream.between(20, 28) / 100))
        pose = scene.find(length + 10, beam + 8, water=True, margin=10)
        if pose is not None:
            fleet.append((pose, length, beam))
    for pose, length, beam in fleet:
        if stream.chance(60) and scene.ground.fits(
            pose.moved(-0.9 * length - 8, 0), 0.8 * length, 1.2 * beam, water=True, margin=0
        ):
            for step, opacity in enumerate((0.45, 0.36, 0.27, 0.18, 0.1)):
                trail = pose.moved(-length / 2 - length * 0.16 * (step + 0.5), 0)
                scene.ground.pave(trail, length * 0.16, beam * (0.5 + 0.16 * step), (176, 196, 202), opacity)
    for pose, length, beam in fleet:
        scene.put("ship", pose, length, beam)


def surroundings(scene: Scene, buildings: int, trees: int, along: int | None = None) -> None:
    """Buildings and trees on what land is left: unlabelled."""
    stream = scene.stream
    for _ in range(scene.times(buildings)):
        length, width = stream.between(28, 80), stream.between(22, 44)
        pose = scene.find(length, width, margin=10, along=along, tries=4)
        if pose is not None:
            paint_building(scene.painter, pose, length, width)
    for _ in range(scene.times(trees)):
        size = stream.between(7, 20)
        pose = scene.find(size, size, margin=4, tries=2)
        if pose is not None:
            paint_tree(scene.painter, pose, size, size)


def _visible_percent(canvas: Canvas, pose: Pose, length: float, width: float) -> int:
    """Share of a rectangle inside the picture, counted on a grid of 16 x 16 points."""
    reach = (length + width) / 2
    if reach <= pose.x <= canvas.width - reach and reach <= pose.y <= canvas.height - reach:
        return 100
    ticks = (np.arange(16) + 0.5) / 16 - 0.5
    (x0, y0), (xu, yu), (xv, yv) = pose.at(0, 0), pose.at(length, 0), pose.at(0, width)
    x = x0 + ticks[:, None] * (xu - x0) + ticks[None, :] * (xv - x0)
    y = y0 + ticks[:, None] * (yu - y0) + ticks[None, :] * (yv - y0)
    inside = (x >= 0) & (x <= canvas.width) & (y >= 0) & (y <= canvas.height)
    return int(np.count_nonzero(inside)) * 100 // 256
