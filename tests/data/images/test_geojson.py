"""GeoJSON by the letter of RFC 7946, and coordinates against closed forms."""

from __future__ import annotations

import io
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import shape

from dbf_ray.data.images import geojson
from dbf_ray.data.images.geojson import Objects, closed, polygon_on_earth, write_geojson
from dbf_ray.data.images.rasters import open_raster

SQUARE = np.array([[10.0, 20, 30, 20, 30, 26, 10, 26]])
PIXEL_BOX = np.array([[20.0, 23, 20, 6, 0]])


def written(objects: Objects, lonlat: Any = None) -> dict[str, Any]:
    stream = io.StringIO()
    write_geojson(stream, "a.tif", objects, lonlat)
    found: dict[str, Any] = json.loads(stream.getvalue())
    return found


def objects(corners: NDArray[np.float64], boxes: NDArray[np.float64] | None = None) -> Objects:
    count = len(corners)
    boxes = np.zeros((count, 5)) if boxes is None else boxes
    return Objects(boxes, corners, ["ship"] * count, np.linspace(0.9, 0.1, count) if count else np.zeros(0))


def ring_area(ring: list[list[float]]) -> float:
    """Twice the signed area by the shoelace formula ; positive: counter-clockwise."""
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in itertools.pairwise(ring))


def test_pixels_where_an_image_is_nowhere() -> None:
    found = written(objects(SQUARE, PIXEL_BOX))
    assert found["type"] == "FeatureCollection"
    assert found["image"] == "a.tif"
    assert "pixels" in found["coordinate_system"]
    # RFC 7946, 7.1: a FeatureCollection must not have these
    assert not {"coordinates", "geometries", "geometry", "properties", "crs"} & set(found)
    (feature,) = found["features"]
    assert feature["type"] == "Feature"
    assert feature["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[10, 20], [30, 20], [30, 26], [10, 26], [10, 20]]],
    }
    assert feature["properties"] == {
        "class": "ship",
        "score": 0.9,
        "cx": 20,
        "cy": 23,
        "w": 20,
        "h": 6,
        "angle": 0,
    }


def test_no_detections_are_an_empty_collection() -> None:
    assert written(objects(np.zeros((0, 8))))["features"] == []


def test_utm_at_the_central_meridian(tmp_path: Path) -> None:
    """Zone 31N: the central meridian is 3 degrees east at easting 500 km. Northings are arcs of it, scaled by
    .9996: from the equator 1 degree is 110,574.39 m (series of the WGS 84 ellipsoid).
    """
    rasterio = pytest.importorskip("rasterio", reason="writes GeoTIFF")
    degree = 110_574.388 * 0.9996
    file, pixel = tmp_path / "utm.tif", 10.0
    # (50, 20) is 3 E, 1 N
    transform = rasterio.Affine(pixel, 0, 500_000 - 50 * pixel, 0, -pixel, degree + 20 * pixel)
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        height=80,
        width=100,
        count=1,
        dtype="uint8",
        crs="EPSG:32631",
        transform=transform,
    ) as out:
        out.write(np.zeros((1, 80, 100), np.uint8))
    corners = np.array([[50.0, 20, 60, 20, 60, 30, 50, 30]])
    with open_raster(file) as raster:
        found = written(objects(corners), raster.lonlat)
    assert "WGS 84" in found["coordinate_system"]
    (ring,) = found["features"][0]["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert ring_area(ring) > 0, "the exterior ring must be counter-clockwise"
    assert [3.0, pytest.approx(1, abs=1e-7)] in ring
    south = min(latitude for _, latitude in ring)
    assert south == pytest.approx(1 - 10 * pixel / degree, abs=1e-7)
    radius = 6378137 / math.sqrt(1 - 0.00669437999 * math.sin(math.radians(1)) ** 2)  # of the prime vertical
    east = max(longitude for longitude, _ in ring)
    assert east == pytest.approx(
        3 + math.degrees(10 * pixel / 0.9996 / (radius * math.cos(math.radians(1)))), abs=1e-7
    )
    assert all(value == round(value, 8) for point in ring for value in point)


@given(
    angle=st.floats(0, 360),
    lon=st.floats(-170, 170),
    lat=st.floats(-80, 80),
    size=st.floats(1e-4, 1),
    flip=st.booleans(),
)
def test_rings_are_closed_and_counter_clockwise(
    angle: float, lon: float, lat: float, size: float, flip: bool
) -> None:
    turn = np.deg2rad(angle + np.array([0, 90, 180, 270]))
    ring = np.stack([lon + size * np.cos(turn), lat + size * np.sin(turn)], -1)[:: -1 if flip else 1]
    found = closed(ring, 8)
    assert len(found) == 5
    assert found[0] == found[-1]
    assert ring_area([[x - lon, y - lat] for x, y in found]) > 0
    assert sorted(found[:-1]) == sorted(ring.round(8).tolist())


def test_an_object_across_the_antimeridian_is_cut_in_two() -> None:
    """RFC 7946, 3.1.9. A square of 2 x 2 degrees around 179.5 E: three quarters lie in the east."""
    ring = np.array([[178.5, 9.0], [-179.5, 9], [-179.5, 11], [178.5, 11]])
    geometry = polygon_on_earth(ring)
    assert geometry is not None
    assert geometry["type"] == "MultiPolygon"
    parts = [part[0] for part in geometry["coordinates"]]
    assert [ring_area(part) / 2 for part in parts] == pytest.approx([3, 1])
    assert all(-180 <= longitude <= 180 for part in parts for longitude, _ in part)
    assert [(min(x for x, _ in part), max(x for x, _ in part)) for part in parts] == [
        (178.5, 180),
        (-180, -179.5),
    ]
    assert shape(geometry).is_valid


def test_an_object_that_the_projection_does_not_place_has_no_geometry() -> None:
    def lonlat(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(points[:, :1] < 100, points / 10, np.inf)

    found = written(objects(np.concatenate([SQUARE, SQUARE + 90])), lonlat)
    assert found["features"][0]["geometry"]["type"] == "Polygon"
    assert found["features"][1]["geometry"] is None
    assert found["features"][1]["properties"]["class"] == "ship"


@pytest.mark.parametrize("west", [285.0, 180.5, -75.0])
def test_longitudes_are_within_half_a_circle(west: float) -> None:
    """Some images count from 0 to 360, some on beyond 180: RFC 7946 does not."""
    [feature] = written(
        objects(SQUARE), lambda points: np.stack([west + points[:, 0] / 1e4, points[:, 1] / 1e4], -1)
    )["features"]
    longitudes = [x for x, _ in feature["geometry"]["coordinates"][0]]
    assert min(longitudes) == pytest.approx(
        (west if west < 0 else west - 360) + SQUARE[..., 0::2].min() / 1e4, abs=1e-6
    )
    assert max(longitudes) == pytest.approx(
        (west if west < 0 else west - 360) + SQUARE[..., 0::2].max() / 1e4, abs=1e-6
    )


def test_an_image_whose_projection_does_not_reach_everywhere(tmp_path: Path) -> None:
    """A geostationary image: its corners are beyond the earth, its middle is below the satellite."""
    rasterio = pytest.importorskip("rasterio", reason="writes GeoTIFF")
    crs = "+proj=geos +h=35785831 +lon_0=10 +sweep=y +ellps=GRS80 +units=m"
    transform = rasterio.transform.from_origin(-5.5e6, 5.5e6, 110e3, 110e3)
    for name, reference in (("geos", crs), ("local", 'LOCAL_CS["site",UNIT["metre",1]]')):
        with rasterio.open(
            tmp_path / f"{name}.tif",
            "w",
            driver="GTiff",
            height=100,
            width=100,
            count=1,
            dtype="uint8",
            crs=reference,
            transform=transform,
        ) as out:
            out.write(np.ones((1, 100, 100), np.uint8))
    with open_raster(tmp_path / "geos.tif") as raster:
        found = raster.lonlat(np.array([[0.0, 0.0], [50.0, 50.0], [100.0, 100.0], [50.0, 60.0]]))
    assert found is not None
    assert not np.isfinite(found[[0, 2]]).any()
    assert found[1] == pytest.approx([10, 0], abs=1e-6)
    assert found[3][0] == pytest.approx(10, abs=1e-6)
    assert -15 < found[3][1] < -8
    with open_raster(tmp_path / "local.tif") as raster:
        assert raster.lonlat(np.zeros((1, 2))) is None


def test_many_objects_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geojson, "_AT_ONCE", 10)
    corners = SQUARE + np.arange(25)[:, None]
    calls = []

    def lonlat(points: NDArray[np.float64]) -> NDArray[np.float64]:
        calls.append(len(points))
        return points / 1000

    found = written(objects(corners), lonlat)["features"]
    assert calls == [40, 40, 20]
    first = [feature["geometry"]["coordinates"][0][0] for feature in found]
    assert first == ((SQUARE[0, :2] + np.arange(25)[:, None]) / 1000).round(8).tolist()
    scores = [feature["properties"]["score"] for feature in found]
    assert scores == sorted(scores, reverse=True)
