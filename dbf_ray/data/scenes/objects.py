"""How the objects of the generated scenes look from above, and what stands around them unlabelled.

Every painter fills exactly the rectangle length x width around its pose: length along the object's heading u,
width across it (v).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dbf_ray.data.scenes.drawing import Array, Canvas, Colour, Frame, Pose, convex, disc, rectangle
from dbf_ray.data.seeds import Stream

CLASSES = ["plane", "ship", "vehicle", "large_vehicle", "storage_tank", "harbor"]
SHADOW = (20, 22, 30)

VEHICLE_COLOURS: list[Colour] = [
    (228, 230, 232), (200, 204, 208), (120, 124, 130), (40, 42, 48), (150, 32, 30),
    (36, 62, 130), (196, 176, 130), (240, 240, 236), (58, 78, 66),
]  # fmt: skip
TRAILER_COLOURS: list[Colour] = [
    (232, 232, 230),
    (206, 206, 204),
    (190, 150, 60),
    (60, 96, 150),
    (150, 60, 50),
    (88, 130, 96),
]
HULL_COLOURS: list[Colour] = [
    (226, 228, 230),
    (170, 60, 46),
    (54, 66, 88),
    (196, 196, 190),
    (120, 128, 132),
    (86, 60, 54),
]
DECK_COLOURS: list[Colour] = [
    (210, 206, 196),
    (150, 138, 118),
    (126, 146, 132),
    (172, 120, 92),
    (188, 190, 190),
]
TANK_COLOURS: list[Colour] = [
    (222, 222, 218),
    (206, 208, 208),
    (186, 190, 194),
    (204, 188, 160),
    (164, 146, 130),
]
ROOF_COLOURS: list[Colour] = [
    (150, 84, 66),
    (126, 126, 128),
    (172, 168, 158),
    (96, 100, 112),
    (118, 84, 66),
    (200, 198, 194),
]
CONTAINER_COLOURS: list[Colour] = [
    (176, 60, 44),
    (46, 88, 150),
    (200, 160, 60),
    (70, 130, 90),
    (200, 200, 198),
]


class Painter:
    """Paints objects on a canvas under one sun; ``opacity`` below 1 makes what follows hard to see."""

    def __init__(self, canvas: Canvas, stream: Stream) -> None:
        self.canvas, self.stream = canvas, stream
        self.sun = stream.choice([(1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (0, 1), (-1, 0), (0, -1)])
        self.shade = stream.between(35, 65) / 100
        self.opacity = 1.0

    def frame(self, pose: Pose, length: float, width: float) -> Frame | None:
        """The window of an object."""
        return self.canvas.frame(pose, length / 2, width / 2)

    def fill(self, frame: Frame, cover: Array, colour: Colour) -> None:
        """Paint a part of an object."""
        self.canvas.blend(frame, cover if self.opacity == 1 else cover * np.float32(self.opacity), colour)

    def shadow(self, frame: Frame, cover: Array, height: int) -> None:
        """Darken the ground beside an object, ``height`` pixels away from the sun."""
        shift = (self.sun[0] * height, self.sun[1] * height)
        self.canvas.blend(frame, cover * np.float32(self.shade * self.opacity), SHADOW, shift)

    def vary(self, colour: Colour, amount: int = 14) -> Colour:
        """A colour near the given one, brighter or darker and a little tinted."""
        level = self.stream.between(-amount, amount)
        red, green, blue = (min(255, max(0, part + level + self.stream.between(-4, 4))) for part in colour)
        return red, green, blue

    def pick(self, colours: list[Colour]) -> Colour:
        """One of the colours, varied."""
        return self.vary(self.stream.choice(colours))


def paint_plane(painter: Painter, pose: Pose, length: float, width: float) -> None:
    """Fuselage, swept wings and tailplane; wing tips, nose and tail touch the rectangle's sides."""
    frame = painter.frame(pose, length, width)
    if frame is None:
        return
    half, span = length / 2, width / 2
    sweep, root = painter.stream.between(14, 34) / 100, painter.stream.between(2, 10) / 100
    across = np.abs(frame.v)
    body = length * painter.stream.between(50, 64) / 1000
    tip = [(half, 0), (half - 0.5 * body, 0.55 * body), (half - 1.6 * body, body)]
    hull = [(-half, 0), *tip, (-half * 0.55, body), (-half, body * 0.3)]
    fuselage = convex(frame.u, across, hull)
    # the half polygons' seam at v = 0
    fuselage = np.maximum(fuselage, rectangle(frame, half * 0.9, body * 0.3, -half * 0.1))
    chord = length * painter.stream.between(16, 22) / 100
    front = half * root + chord * 0.6
    wing = convex(
        frame.u,
        across,
        [
            (front - chord, 0),
            (front, 0),
            (front - sweep * span, span),
            (front - sweep * span - chord * 0.36, span),
        ],
    )
    tail_span, tail = span * 0.4, half - length * 0.005
    fin = convex(
        frame.u,
        across,
        [(-tail, 0), (-tail + chord * 0.6, 0), (-tail + chord * 0.22, tail_span), (-tail, tail_span)],
    )
    outline = np.maximum(np.maximum(fuselage, wing), fin)
    colour = painter.vary(
        painter.stream.choice([(232, 234, 236), (214, 218, 222), (190, 196, 202), (150, 158, 160)])
    )
    painter.shadow(frame, outline, max(2, int(length) // 18))
    painter.fill(frame, outline, colour)
    painter.fill(
        frame, fuselage, (min(255, colour[0] + 16), min(255, colour[1] + 16), min(255, colour[2] + 16))
    )
    engine = front - sweep * span * 0.4
    painter.fill(
        frame,
        disc(Frame(frame.top, frame.left, frame.u, across), max(1.2, body * 0.55), engine, span * 0.4),
        (92, 96, 104),
    )
    painter.fill(frame, rectangle(frame, body * 0.35, body * 0.6, half - 1.7 * body), (60, 68, 84))
    if painter.stream.chance(40):
        painter.fill(
            frame, rectangle(frame, chord * 0.3, body * 0.4, -half * 0.82), painter.pick(CONTAINER_COLOURS)
        )


def paint_ship(painter: Painter, pose: Pose, length: float, width: float) -> None:
    """A hull with a pointed bow, a deck, and by size a cabin, or a bridge aft with hatches or containers
    before it.
    """
    frame = painter.frame(pose, length, width)
    if frame is None:
        return
    half, side = length / 2, width / 2
    across = np.abs(frame.v)
    shoulder = half - width * painter.stream.between(80, 130) / 100
    bow = [(half, 0), (half - 0.35 * (half - shoulder), side * 0.6), (shoulder, side)]
    hull = convex(frame.u, across, [(-half, 0), *bow, (-half * 0.8, side), (-half, side * 0.82)])
    hull = np.maximum(hull, rectangle(frame, half - 1, 0.6))
    painter.shadow(frame, hull, 1 + int(length) // 60)
    painter.fill(frame, hull, painter.pick(HULL_COLOURS))
    inner = max(1.0, side * 0.16)
    deck = convex(
        frame.u,
        across,
        [
            (-half + inner, 0),
            (half - 2.5 * inner, 0),
            (shoulder - inner, side - inner),
            (-half + inner, side - inner),
        ],
    )
    deck = np.maximum(deck, rectangle(frame, half - 3 * inner, 0.6))
    painter.fill(frame, deck, painter.pick(DECK_COLOURS))
    if length < 42:
        cabin = -half * painter.stream.between(0, 40) / 100
        painter.fill(
            frame,
            rectangle(frame, length * 0.16, side * 0.55, cabin),
            painter.pick([(236, 238, 240), (222, 222, 218)]),
        )
        painter.fill(frame, rectangle(frame, 1.2, side * 0.5, cabin + length * 0.15), (54, 66, 84))
        return
    bridge = -half + length * 0.14
    painter.fill(
        frame,
        rectangle(frame, length * 0.07, side * 0.72, bridge),
        painter.pick([(238, 238, 236), (224, 226, 228)]),
    )
    painter.fill(frame, rectangle(frame, 1.4, side * 0.72, bridge + length * 0.07), (48, 56, 70))
    hatches = max(2, int(length * 0.5 / max(7.0, width * 0.55)))
    loaded = painter.stream.chance(50)
    for position in range(hatches):
        u0 = bridge + length * 0.12 + (position + 0.5) * length * 0.54 / hatches
        colour = painter.pick(CONTAINER_COLOURS) if loaded else painter.vary((112, 108, 104))
        painter.fill(frame, rectangle(frame, length * 0.21 / hatches, side * 0.62, u0), colour)


def paint_vehicle(painter: Painter, pose: Pose, length: float, width: float) -> None:
    """A car: body with rounded ends, dark windscreens before and behind a roof."""
    frame = painter.frame(pose, length, width)
    if frame is None:
        return
    half, side = length / 2, width / 2
    body = rectangle(frame, half, side) * np.minimum(
        1, np.maximum(0, half + side * 0.55 + 0.5 - (np.abs(frame.u) + np.abs(frame.v) * 0.6))
    )
    colour = painter.pick(VEHICLE_COLOURS)
    painter.shadow(frame, body, 2)
    painter.fill(frame, body, colour)
    glass = (34, 40, 50) if sum(colour) > 240 else (110, 122, 134)
    painter.fill(frame, rectangle(frame, length * 0.27, side * 0.78, -length * 0.06), glass)
    painter.fill(frame, rectangle(frame, length * 0.15, side * 0.72, -length * 0.08), colour)


def paint_large_vehicle(painter: Painter, pose: Pose, length: float, width: float) -> None:
    """A lorry (cab, gap, trailer) or a bus (one body with roof hatches)."""
    frame = painter.frame(pose, length, width)
    if frame is None:
        return
    half, side = length / 2, width / 2
    if painter.stream.chance(30):
        body = rectangle(frame, half, side)
        painter.shadow(frame, body, 3)
        painter.fill(frame, body, painter.pick(TRAILER_COLOURS))
        for step in (-0.28, 0.0, 0.28):
            painter.fill(frame, rectangle(frame, length * 0.05, side * 0.45, step * length), (130, 134, 138))
        painter.fill(frame, rectangle(frame, 1.3, side * 0.85, half - 2.5), (36, 42, 52))
        return
    cab = max(6.0, length * 0.18)
    trailer = rectangle(frame, half - cab / 2 - 1, side, -cab / 2 - 1)
    front = rectangle(frame, cab / 2, side * 0.92, half - cab / 2)
    painter.shadow(frame, np.maximum(trailer, front), 3)
    painter.fill(frame, rectangle(frame, half - 2, side * 0.35), (44, 44, 46))
    painter.fill(frame, trailer, painter.pick(TRAILER_COLOURS))
    painter.fill(frame, rectangle(frame, half - cab / 2 - 3, 0.6, -cab / 2 - 1), (150, 150, 150))
    painter.fill(frame, front, painter.pick(VEHICLE_COLOURS))
    painter.fill(frame, rectangle(frame, 1.4, side * 0.75, half - cab * 0.3), (36, 42, 52))


def paint_storage_tank(painter: Painter, pose: Pose, length: float, width: float) -> None:
    """A round tank with a rim; some with a sunken floating roof half in shade, some with a domed one."""
    frame = painter.frame(pose, length, width)
    if frame is None:
        return
    radius = length / 2
    outline = disc(frame, radius)
    painter.shadow(frame, outline, max(2, int(radius) // 4))
    colour = painter.pick(TANK_COLOURS)
    painter.fill(frame, outline, (max(0, colour[0] - 50), max(0, colour[1] - 50), max(0, colour[2] - 48)))
    painter.fill(frame, disc(frame, radius * 0.9), colour)
    lean = radius * 0.22
    if painter.stream.chance(55):
        shade = np.maximum(
            disc(frame, radius * 0.86)
            - disc(frame, radius * 0.86, painter.sun[0] * lean, painter.sun[1] * lean),
            0,
        )
        painter.fill(frame, shade * np.float32(0.6), SHADOW)
    else:
        painter.fill(
            frame,
            disc(frame, radius * 0.5, -painter.sun[0] * lean, -painter.sun[1] * lean) * np.float32(0.5),
            (252, 252, 250),
        )
    painter.fill(frame, rectangle(frame, radius * 0.5, 0.6), (120, 120, 118))


def paint_harbor(painter: Painter, pose: Pose, length: float, width: float) -> None:
    """A pier: a slab with kerbs, joints across it and bollards along it."""
    frame = painter.frame(pose, length, width)
    if frame is None:
        return
    half, side = length / 2, width / 2
    slab = rectangle(frame, half, side)
    painter.shadow(frame, slab, 2)
    colour = painter.pick([(186, 182, 172), (160, 158, 152), (150, 126, 100), (200, 196, 188)])
    painter.fill(frame, slab, (max(0, colour[0] - 44), max(0, colour[1] - 44), max(0, colour[2] - 44)))
    painter.fill(frame, rectangle(frame, half - 1.5, side - 1.5), colour)
    joints = max(2, int(length) // 14)
    for joint in range(1, joints):
        painter.fill(
            frame, rectangle(frame, 0.6, side - 1.5, -half + joint * length / joints), (110, 108, 102)
        )
    if width > 15:
        painter.fill(frame, rectangle(frame, half - 3, 1.0), (96, 96, 98))


def paint_building(painter: Painter, pose: Pose, length: float, width: float) -> None:
    """Unlabelled: a house or hall with a flat roof or a gable, and a long shadow."""
    frame = painter.frame(pose, length, width)
    if frame is None:
        return
    half, side = length / 2, width / 2
    walls = rectangle(frame, half, side)
    for height in (3, 6):
        painter.shadow(frame, walls, height)
    colour = painter.pick(ROOF_COLOURS)
    painter.fill(frame, walls, colour)
    if painter.stream.chance(60):
        painter.fill(
            frame,
            rectangle(frame, half, side / 2, 0, side / 2),
            (max(0, colour[0] - 30), max(0, colour[1] - 30), max(0, colour[2] - 28)),
        )
        return
    for _ in range(painter.stream.between(1, 4)):
        u0, v0 = painter.stream.between(-70, 70) / 100 * half, painter.stream.between(-60, 60) / 100 * side
        painter.fill(frame, rectangle(frame, 2.5, 2.5, u0, v0), (96, 98, 102))


def paint_tree(painter: Painter, pose: Pose, length: float, width: float) -> None:
    """Unlabelled: a crown with a lit side."""
    frame = painter.frame(pose, length, width)
    if frame is None:
        return
    radius = length / 2
    crown = disc(frame, radius)
    painter.shadow(frame, crown, 2)
    painter.fill(frame, crown, painter.vary((44, 66, 36)))
    lit = disc(frame, radius * 0.55, -painter.sun[0] * radius * 0.3, -painter.sun[1] * radius * 0.3)
    painter.fill(frame, lit * np.float32(0.6), painter.vary((84, 110, 58)))


PAINTERS: dict[str, Callable[[Painter, Pose, float, float], None]] = {
    "plane": paint_plane,
    "ship": paint_ship,
    "vehicle": paint_vehicle,
    "large_vehicle": paint_large_vehicle,
    "storage_tank": paint_storage_tank,
    "harbor": paint_harbor,
}
