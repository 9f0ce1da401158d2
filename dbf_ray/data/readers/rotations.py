"""What says beside an upright box that it is turned.

Tools write a turned box as an upright one and a rotation beside it, in keys of their own. Two are documented
and read: ``rotation`` among an object's ``attributes``, in degrees and clockwise about the box's centre, as
CVAT exports it to COCO and VOC; and roLabelImg's ``robndbox`` (:mod:`.dior`). Of any other key nobody says
whether it is in degrees or radians, which way it turns, and about which point, so that it is refused.
"""

from __future__ import annotations

import functools
import json
import math
import re
import reprlib
from collections.abc import Container, Iterable, Iterator
from typing import Any, Literal, NamedTuple

Points = list[tuple[float, float]]

SURE = frozenset({"rotation", "rotate", "rot", "angle", "ang", "theta"})
"""Words of a key that say that its value turns the box."""
JOINED = re.compile(
    r"(rot|rotation|rotated?|box|bbox|obb|obj|object)?(angle|rotation|theta|θ|rot)s?(deg|degrees?|rad|radians?)?"
)
"""Such words in one, as ``rotationangle``; letters alone."""
PERHAPS = frozenset(
    {"orientation", "direction", "heading", "bearing", "course", "yaw", "tilt", "azimuth"}
    | {"deg", "degree", "degrees", "rad", "radian", "radians"}
)
"""Words that may as well say where an object looks: only numbers count, and only beside an upright box."""
OTHERS = frozenset(
    {"camera", "elevation", "image", "img", "incidence", "look", "nadir", "sensor", "solar", "sun", "view"}
)
"""Words of angles that are not the object's."""
TURNED = re.compile(
    r"(is|has)?(r|ro|rot|rotated|rotatable|oriented|minarea)((b|bnd|bounding)?b?box(es)?|bb|rect(angle)?s?)"
    r"|(is|has)?(rotated|obb)"
    r"|(b|bnd|bounding)?box(obb|rot|rotated|oriented)|c?x?c?ywh(a|r|angle|theta)|xyxyxyxy|obb?box(es)?"
    r"|poly(gon)?s?|quad(rilateral|rangle)?|corners|vertices|points"
)
"""Keys that hold a box that is not upright, or say that there is one; letters and digits alone."""
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
TOLERANCE = 0.5  # degrees between a polygon's side and a rotation that are the same
SQUARE = 1e-2  # cosine of what is a right angle
DEEPEST = 8  # mappings within each other that are looked into
NAMING = ("name", "key", "label", "attribute")
"""Keys of the name in {"name": "rotation", "value": 45}."""
VALUES = ("value", "values", "val")


class Rotation(NamedTuple):
    """A rotation beside a box: its key, its value as written, and whether it is CVAT's, in degrees and
    clockwise about the centre.
    """

    key: str
    value: Any
    known: bool = False

    @property
    def shown(self) -> str:
        """The value for messages."""
        return reprlib.repr(self.value)

    @property
    def number(self) -> float | None:
        """The value as a finite number, None where it is none; the last one of [x, y, w, h, angle]."""
        value = self.value[-1] if isinstance(self.value, list) and len(self.value) == 5 else self.value
        try:
            number = float(value) if isinstance(value, str | int | float) and value is not True else math.nan
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None

    @property
    def sure(self) -> bool:
        """Whether the value must be an angle of the box."""
        return _kind(self.key) == "sure"


def rotations(pairs: Iterable[tuple[str, Any]], known: str) -> list[Rotation]:
    """The rotations other than 0 among an object's keys and values, CVAT's last, whose key is ``known``."""
    found = [Rotation(key, value, key == known) for key, value in pairs if _turns(key, value)]
    return sorted((one for one in found if one.number != 0), key=lambda one: one.known)


def entries(
    value: dict[str, Any], skipped: Container[str] = (), place: str = "", depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Keys and values of mappings within each other, keys joined by dots; among them those of lists, also as
    ``{"name": ..., "value": ...}`` or pairs, and of JSON that is kept as text.
    """
    if depth > DEEPEST:
        return
    for key, written in value.items():
        if key in skipped:
            continue
        yield f"{place}{key}", written
        inner = _json(written) if isinstance(written, str) else written
        if isinstance(inner, dict):
            # what is text in one file and a mapping in another need not be the same tool's
            yield from entries(inner, skipped, f"{place}{key}{'.' if inner is written else ': '}", depth + 1)
        for one in inner if isinstance(inner, list) else ():
            if isinstance(one, dict):
                yield from entries(one, skipped, f"{place}{key}: ", depth + 1)
                names = [one[naming] for naming in NAMING if isinstance(one.get(naming), str)]
                values = [one[part] for part in VALUES if part in one]
                yield from ((f"{place}{key}: {name}", content) for name in names for content in values[:1])
            elif isinstance(one, list) and len(one) == 2 and isinstance(one[0], str):
                yield f"{place}{key}: {one[0]}", one[1]


def _json(text: str) -> Any:
    """What a text that is a mapping or list in JSON holds, None for any other."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def not_understood(rotation: Rotation, corners: str) -> str:
    """Why a box cannot be turned by a rotation; ``corners``: what to give instead."""
    if rotation.number is None and rotation.sure:
        return _no_number(rotation)
    return (
        f"what turns a box must be understood, got an upright box and {rotation.key} {rotation.shown} beside "
        f"it, of which unit, direction and centre are not known; give {corners}, or remove {rotation.key} if "
        "it does not turn the box"
    )


def turned(corners: tuple[float, ...], rotation: Rotation) -> tuple[float, ...] | str:
    """An upright box's corners (left, top, right, top, right, bottom, left, bottom) turned as CVAT says, or
    why they cannot be.
    """
    if (degrees := rotation.number) is None:
        return _no_number(rotation)
    if abs(degrees) > 360:
        return f"{rotation.key} must be degrees, 360 at most, got {rotation.shown}; correct or remove it"
    left, top, right, bottom = *corners[:2], *corners[4:6]
    center = (left + right) / 2, (top + bottom) / 2
    return box_corners(*center, right - left, bottom - top, math.radians(degrees))


def box_corners(cx: float, cy: float, w: float, h: float, radians: float) -> tuple[float, ...]:
    """Corners (x1, y1, ..., x4, y4) of a box that is turned clockwise as seen in the image, first the top
    left one before turning.
    """
    cos, sin = math.cos(radians), math.sin(radians)
    corners = []
    for along, across in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        x, y = along * w / 2, across * h / 2
        corners += [cx + x * cos - y * sin, cy + x * sin + y * cos]
    return tuple(corners)


def contradiction(points: Points, rotation: Rotation) -> str | None:
    """Why a polygon and a rotation beside it cannot both be right, None where they can.

    Only a rectangle shows how it is turned: with its sides as the rotation says, in degrees or radians and
    either way round, it has been turned already. An upright rectangle beside CVAT's rotation of a quarter may
    be the box before or after: it is refused too, unless it is a square.
    """
    if not rotation.sure:
        return None
    if (number := rotation.number) is None:
        return _no_number(rotation)
    if (sides := _rectangle(points)) is None:
        return None
    (short, *_), (long, x, y) = sides
    side = math.remainder(math.degrees(math.atan2(y, x)), 90)
    upright = abs(side) <= 1e-6
    rounded = not upright and all(value == round(value) for point in points for value in point)
    tolerance = TOLERANCE + (math.degrees(math.atan(1.5 / long)) if rounded else 0.0)
    said = [number] if rotation.known else [number, -number]
    if not rotation.known and abs(number) <= 2 * math.pi:
        said += [math.degrees(number), -math.degrees(number)]
    apart = min(abs(math.remainder(side - angle, 90)) for angle in said)
    quarter = rotation.known and upright and abs(math.remainder(number, 180)) > 45 and long - short > 1
    if apart <= tolerance and not quarter:
        return None
    return (
        f"the polygon and {rotation.key} must say the same, got a rectangle with a side at {side:.4g} "
        f"degrees and {rotation.shown}; remove the one that is wrong"
    )


def _rectangle(points: Points) -> list[tuple[float, float, float]] | None:
    """Two sides (length, x, y) of four points that are a rectangle, the shorter first."""
    if len(points) != 4:
        return None
    sides = [(x - points[place - 1][0], y - points[place - 1][1]) for place, (x, y) in enumerate(points)]
    lengths = [math.hypot(*side) for side in sides]
    if not 0 < min(lengths) <= max(lengths) < math.inf:
        return None
    for place, (x, y) in enumerate(sides):
        across = x * sides[place - 1][0] + y * sides[place - 1][1]
        if abs(across) > SQUARE * lengths[place] * lengths[place - 1]:
            return None
    return sorted((lengths[place], *sides[place]) for place in (1, 2))


def _no_number(rotation: Rotation) -> str:
    return f"{rotation.key} must be a finite number, got {rotation.shown}; correct or remove it"


def _turns(key: str, value: Any) -> bool:
    """Whether an object's key and value may say that the box is turned."""
    kind = _kind(key)
    if kind is None or value is None or value is False or value == [] or value == {}:
        return False
    if kind == "perhaps":
        return Rotation(key, value).number is not None
    if kind == "sure":
        return True
    if isinstance(value, str):
        return value.strip().lower() not in ("", "no", "false", "none")
    return isinstance(value, list | dict) or kind == "said"


@functools.lru_cache(maxsize=1024)
def _kind(key: str) -> Literal["sure", "perhaps", "held", "said"] | None:
    """What a key may say of a box: that it must be or may be turned by the value, that the value holds it, or
    whether it is turned.
    """
    last = re.split(r"[.:]", key)[-1]
    words = {word.lower() for word in WORDS.findall(last)}
    if words & OTHERS:
        return None
    if words & SURE or JOINED.fullmatch("".join(letter for letter in last.lower() if letter.isalpha())):
        return "sure"
    if words & PERHAPS:
        return "perhaps"
    name = re.sub(r"[^a-z0-9]", "", last.lower())
    if TURNED.fullmatch(name) is None:
        return None
    return "said" if name.startswith(("is", "has", "rotated")) else "held"
