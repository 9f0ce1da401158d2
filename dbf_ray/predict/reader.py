"""Windows read ahead: while the network looks at one batch, a thread of its own reads the next.

Only that thread opens, reads and closes images, one at a time: what an image takes in memory is given back
before the next is opened. Of a window that has been read no more is kept than what the network sees and what
an overlay shows, and no more than three batches of these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from dbf_ray.data.images.geojson import LonLat
from dbf_ray.data.images.rasters import Raster, open_raster
from dbf_ray.errors import DataError
from dbf_ray.predict.windows import Piece, Tiling
from dbf_ray.reports.overlays import Layout, Patch

OpenImage = Callable[[Path], contextlib.AbstractContextManager[Raster]]


class Seen(NamedTuple):
    """A window as the network and as an overlay sees it.

    Attributes:
        pixels: uint8 [3, h, w], resized.
        patch: of the overlay; None where none is drawn.
        lonlat: longitudes and latitudes of points [n, 2] of the image, if it tells; good after the image is
            closed.
    """

    piece: Piece
    pixels: Tensor
    patch: Patch | None
    lonlat: LonLat | None


class Unreadable(NamedTuple):
    """An image that cannot be read, or not to its end; no more windows of it will come."""

    piece: Piece
    reason: str


def read_ahead(
    batches: Iterable[list[Piece]],
    tiling: Tiling,
    overlay_size: int | None = None,
    open_image: OpenImage = open_raster,
) -> Generator[list[Seen | Unreadable], None, None]:
    """Read batches of windows, one batch ahead of who asks for them; to be closed by who does not ask for
    all.

    Args:
        batches: what to read, in this order.
        tiling: how windows are resized.
        overlay_size: long side of the overlays; None: none are drawn.
        open_image: opens an image; see :func:`.open_raster`.
    """
    read = _read(batches, tiling, overlay_size, open_image)
    with ThreadPoolExecutor(1, "reader") as thread:
        try:
            coming = thread.submit(next, read, None)
            while (batch := coming.result()) is not None:
                coming = thread.submit(next, read, None)
                yield batch
        finally:
            thread.submit(read.close)


def _read(
    batches: Iterable[list[Piece]], tiling: Tiling, overlay_size: int | None, open_image: OpenImage
) -> Generator[list[Seen | Unreadable], None, None]:
    broken: set[str] = set()
    with contextlib.ExitStack() as opened:
        raster: Raster | None = None
        name = ""
        for batch in batches:
            seen: list[Seen | Unreadable] = []
            for piece in batch:
                if piece.picture.name in broken:
                    continue
                try:
                    if raster is None or piece.picture.name != name:
                        raster = None  # its pixels go before others come
                        opened.close()
                        raster, name = (
                            opened.enter_context(open_image(piece.picture.file)),
                            piece.picture.name,
                        )
                        _check_size(raster, piece)
                    seen.append(_see(raster, piece, tiling, overlay_size))
                except DataError as error:
                    broken.add(piece.picture.name)
                    seen.append(Unreadable(piece, str(error)))
            yield seen


def _check_size(raster: Raster, piece: Piece) -> None:
    if raster.size != piece.picture.size:
        raise DataError(
            f"{piece.picture.file}: an image must not change while it is looked at, its (height, width) was "
            f"{piece.picture.size} and is now {raster.size}; start again"
        )


def _see(raster: Raster, piece: Piece, tiling: Tiling, overlay_size: int | None) -> Seen:
    x, y = piece.window.x, piece.window.y
    width, height = piece.window.within(*raster.size)
    pixels = raster.read(x, y, width, height)
    patch = None
    if overlay_size is not None:
        patch = Layout.of(raster.size, overlay_size).shrink(pixels.permute(1, 2, 0).numpy(), x, y)
    located = piece.last and raster.lonlat(np.zeros((1, 2))) is not None
    return Seen(piece, tiling.resize(pixels), patch, raster.lonlat if located else None)
