"""Detections as GeoJSON (RFC 7946), which geographic information systems such as QGIS open.

Where an image tells where on earth it lies, coordinates are longitudes and latitudes in degrees (WGS 84), as
the standard wants them. Where it does not, they are pixels (x to the right, y *down*), and the member
``coordinate_system`` says so: a program that takes them for degrees shows the image's mirror image.
Properties of a feature: ``class``, ``score``, and the box in pixels, ``cx``, ``cy``, ``w``, ``h`` and
``angle`` (degrees, counter-clockwise as seen in the image).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

WORLD = "longitude, latitude (WGS 84)"
PIXELS = "pixels (x to the right, y down)"
DIGITS = 8  # of a degree: about a millimetre
_AT_ONCE = 10_000  # objects whose places on earth are computed together

Ring = list[list[float]]
LonLat = Callable[[NDArray[np.float64]], NDArray[np.float64] | None]


class Objects(NamedTuple):
    """Objects of one image: ``boxes`` [n, 5] and ``corners`` [n, 8] in pixels, class ``names`` [n],
    ``scores`` [n].
    """

    boxes: NDArray[np.float64]
    corners: NDArray[np.float64]
    names: Sequence[str]
    scores: NDArray[np.float64]


def write_geojson(stream: TextIO, image: str, objects: Objects, lonlat: LonLat | None = None) -> None:
    """Write a FeatureCollection with a feature a line.

    An object whose place on earth the projection does not tell has geometry null. One that lies across the
    antimeridian is cut in two there, as the standard asks.

    Args:
        stream: where to.
        image: its name, for the member ``image``.
        objects: in the order of the features.
        lonlat: longitudes and latitudes [n, 2] of points (x, y) [n, 2] in pixels; None: the image does not
            tell.
    """
    head = {
        "type": "FeatureCollection",
        "image": image,
        "coordinate_system": PIXELS if lonlat is None else WORLD,
    }
    stream.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [')
    for number, feature in enumerate(_features(objects, lonlat)):
        stream.write((",\n" if number else "\n") + json.dumps(feature, ensure_ascii=False, allow_nan=False))
    stream.write("\n]}\n")


def _features(objects: Objects, lonlat: LonLat | None) -> Iterator[dict[str, Any]]:
    for start in range(0, len(objects.boxes), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        points = objects.corners[part].reshape(-1, 2)
        located = points if lonlat is None else lonlat(points)
        assert located is not None, "an image tells of all its points or of none"
        rows = zip(
            objects.boxes[part].tolist(),
            located.reshape(-1, 4, 2),
            objects.names[part],
            objects.scores[part].tolist(),
            strict=True,
        )
        for (cx, cy, w, h, angle), ring, name, score in rows:
            box = {
                "cx": round(cx, 2),
                "cy": round(cy, 2),
                "w": round(w, 2),
                "h": round(h, 2),
                "angle": round(angle, 2),
            }
            geometry = polygon(ring) if lonlat is None else polygon_on_earth(ring)
            yield {
                "type": "Feature",
                "properties": {"class": name, "score": float(f"{score:.6g}"), **box},
                "geometry": geometry,
            }


def polygon(ring: NDArray[np.float64], digits: int = 2) -> dict[str, Any]:
    """The geometry of a quadrilateral [4, 2]."""
    return {"type": "Polygon", "coordinates": [closed(ring, digits)]}


def polygon_on_earth(ring: NDArray[np.float64]) -> dict[str, Any] | None:
    """The geometry of longitudes and latitudes [4, 2]: in two parts across the antimeridian, None where a
    number is not finite.
    """
    if not np.isfinite(ring).all():
        return None
    # some images count from 0 to 360, or on beyond 180
    ring = np.stack([(ring[:, 0] + 180) % 360 - 180, ring[:, 1]], -1)
    if np.ptp(ring[:, 0]) <= 180:
        return polygon(ring, DIGITS)
    from shapely import Polygon, box

    whole = Polygon(ring + np.where(ring[:, :1] < 0, [360.0, 0.0], 0.0))  # longitudes from 0 to 360
    parts = []
    for west, shift in ((0, 0.0), (180, -360.0)):
        part = whole.intersection(box(west, -90, west + 180, 90))
        if part.geom_type == "Polygon" and part.area > 0:
            parts.append([closed(np.array(part.exterior.coords[:-1]) + np.array([shift, 0.0]), DIGITS)])
    return {"type": "MultiPolygon", "coordinates": parts}


def closed(ring: NDArray[np.float64], digits: int) -> Ring:
    """Points [n, 2] counter-clockwise in their own coordinates, the first again at the end."""
    x, y = (ring - ring[0]).T
    if (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() < 0:
        ring = ring[::-1]
    points: Ring = ring.round(digits).tolist()
    return [*points, points[0]]
