"""What is in memory at a time: three batches at most, and one image."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dbf_ray.data.images.rasters import open_raster
from dbf_ray.predict.images import Picture
from dbf_ray.predict.reader import Seen, Unreadable, read_ahead
from dbf_ray.predict.windows import Tiling, batches
from tests.predict.conftest import draw, save


class Counting:
    """A raster that counts the windows of it that are alive."""

    alive = most = 0
    opened: list[str] = []  # noqa: RUF012
    threads: set[int] = set()  # noqa: RUF012

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def read(self, x: int, y: int, width: int, height: int) -> Tensor:
        array = np.full((3, height, width), (x + y) % 251, np.uint8)
        cls = type(self)
        cls.alive += 1
        cls.most = max(cls.most, cls.alive)
        cls.threads.add(threading.get_ident())
        weakref.finalize(array, cls.gone)
        return torch.from_numpy(array)

    def lonlat(self, points: NDArray[np.float64]) -> None:
        return

    @classmethod
    def gone(cls) -> None:
        cls.alive -= 1


@contextlib.contextmanager
def open_counting(file: Path) -> Iterator[Counting]:
    Counting.opened.append(file.name)
    assert len(Counting.opened) == 1, "two images are open at once"
    try:
        yield Counting((1000, 2000))
    finally:
        Counting.opened.remove(file.name)


@pytest.mark.parametrize("image_size", [100, 50])
@pytest.mark.parametrize("overlay", [None, 64])
def test_few_windows_are_in_memory_at_once(image_size: int, overlay: int | None) -> None:
    """At image_size 100 what is read is what the network sees; at 50 it is dropped once it is resized."""
    Counting.most, Counting.threads = 0, set()
    pictures = [Picture(Path(f"{name}.png"), name, (1000, 2000), (1, 2)) for name in "abc"]
    tiling, seen = Tiling(100, 20, image_size), 0
    for batch in read_ahead(batches(pictures, tiling, 4, {}, []), tiling, overlay, open_counting):
        assert all(
            isinstance(one, Seen) and one.lonlat is None and (one.patch is None) == (overlay is None)
            for one in batch
        )
        seen += len(batch)
    del batch
    assert seen == 3 * 13 * 25
    # one batch was looked at, one is, one is being read; where windows are resized they are dropped one by
    # one
    assert Counting.most <= (3 * 4 if image_size == 100 else 2)
    assert Counting.alive == 0
    assert Counting.opened == []
    assert len(Counting.threads) == 1
    assert Counting.threads != {threading.get_ident()}


def test_an_abandoned_reader_closes_its_image() -> None:
    pictures = [Picture(Path("a.png"), "a", (1000, 2000), (1, 2))]
    tiling = Tiling(100, 20, 100)
    reading = read_ahead(batches(pictures, tiling, 4, {}, []), tiling, None, open_counting)
    next(reading)
    reading.close()
    assert Counting.opened == []


def test_a_broken_image_is_told_once_and_the_others_come(tmp_path: Path) -> None:
    pictures = []
    for name, size in (("a", (64, 64)), ("b", (64, 200)), ("c", (64, 64))):
        file = save(tmp_path / f"{name}.png", draw(size, []))
        pictures.append(Picture(file, name, size, (1, 2)))
    content = pictures[1].file.read_bytes()
    pictures[1].file.write_bytes(content[: len(content) // 2])
    tiling = Tiling(64, 16, 64)
    found = [one for batch in read_ahead(batches(pictures, tiling, 2, {}, []), tiling) for one in batch]
    assert [(one.piece.picture.name, isinstance(one, Unreadable)) for one in found] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]
    assert isinstance(found[1], Unreadable)
    assert "b.png: images must be decodable" in found[1].reason


def test_an_image_that_has_changed_its_size_is_told(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png", draw((64, 64), []))
    tiling = Tiling(64, 16, 64)
    ((found,),) = read_ahead(batches([Picture(file, "a", (64, 60), (1, 2))], tiling, 2, {}, []), tiling)
    assert isinstance(found, Unreadable)
    assert (
        "must not change while it is looked at, its (height, width) was (64, 60) and is now (64, 64)"
        in found.reason
    )


def test_other_errors_are_raised(tmp_path: Path) -> None:
    def broken(file: Path) -> contextlib.AbstractContextManager[Counting]:
        raise OSError("the disk is on fire")

    tiling = Tiling(64, 16, 64)
    with pytest.raises(OSError, match="on fire"):
        list(
            read_ahead(
                batches([Picture(tmp_path / "a.png", "a", (64, 60), (1, 2))], tiling, 2, {}, []),
                tiling,
                None,
                broken,
            )
        )


def test_where_on_earth_an_image_lies_is_known_after_it_is_closed(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="writes GeoTIFF")
    file = tmp_path / "a.tif"
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 1000)
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        height=100,
        width=90,
        count=3,
        dtype="uint8",
        crs="EPSG:32631",
        transform=transform,
    ) as out:
        out.write(np.zeros((3, 100, 90), np.uint8))
    with open_raster(file) as raster:
        assert raster.size == (100, 90)
    tiling = Tiling(64, 16, 64)
    found = [
        one
        for batch in read_ahead(batches([Picture(file, "a", (100, 90), (1, 2))], tiling, 3, {}, []), tiling)
        for one in batch
    ]
    assert [isinstance(one, Seen) and one.lonlat is not None for one in found] == [False, False, False, True]
    assert isinstance(found[-1], Seen)
    assert found[-1].lonlat is not None
    located = found[-1].lonlat(np.array([[0.0, 100.0]]))
    assert located is not None
    assert located[0] == pytest.approx([3, 0], abs=1e-9)  # the central meridian and the equator
