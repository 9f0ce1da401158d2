"""Image files: a cheap check before training, and decoding to upright RGB tensors of 8 bits.

The orientation that a camera noted (EXIF) is applied, as OpenCV, MMCV and most labelling tools do: sizes and
labels are those of the upright image. Images of more than 8 bits a channel are stretched to 8, see
:mod:`.deep_images`. A TIFF file is read as it is by windows: by rasterio, if that is installed.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from dbf_ray.data.images.deep import BITS_PER_SAMPLE, as_rgb, bits_of, limits_of, stretch
from dbf_ray.data.images.geo_raster import open_geo, rasterio
from dbf_ray.errors import DataError
from dbf_ray.machine import free_memory
from dbf_ray.values import is_text

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
# types of images that are not read, so that they are named and not taken for nothing
OTHER_TYPES = {
    **{".webp": "WebP", ".gif": "GIF", ".heic": "HEIC", ".heif": "HEIF", ".avif": "AVIF", ".jxl": "JPEG XL"},
    **{".jp2": "JPEG 2000", ".j2k": "JPEG 2000", ".jpx": "JPEG 2000", ".jfif": "JFIF", ".jpe": "JPE"},
    **{
        ".ppm": "PPM",
        ".pgm": "PGM",
        ".pnm": "PNM",
        ".tga": "TGA",
        ".dds": "DDS",
        ".psd": "PSD",
        ".svg": "SVG",
    },
    **{".ecw": "ECW", ".sid": "MrSID", ".ntf": "NITF", ".nitf": "NITF", ".dng": "DNG"},
}
TIFF = (".tif", ".tiff")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # with +: BigTIFF
DEEP = ("I;16", "I;16B", "I;16L", "I", "F")  # Pillow's modes of one band with more than 8 bits
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", *DEEP)
# what Pillow may take a file for, whatever it is called: for EPS it would start Ghostscript
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000")
LARGEST = 1 << 32  # pixels: what is larger is no image but a file made to fill memory
BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # of Pillow; others have 4
ORIENTATION = 274  # EXIF tag
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # TIFF tag
PIXEL_TAGS = ((273, 324), (279, 325))  # TIFF tags: where pixels are, and how many bytes
# The bytes that a complete file ends with.
ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}

UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError)


@contextlib.contextmanager
def large_images(allowed: bool = True) -> Iterator[None]:
    """Lets Pillow open images beyond the size at which it suspects an attack (178 million pixels); unless it
    is not ``allowed``.
    """
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = LARGEST if allowed else limit
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check_image(file: Path, any_size: bool = False) -> tuple[int, int]:
    """Check an image file's header, and that its end is there; a file whose end looks wrong is decoded to
    find out.

    Args:
        file: the image.
        any_size: it will be read by windows, so it may be too large to be decoded at once.

    Returns:
        (height, width) in pixels of the upright image.

    Raises:
        DataError: the image cannot be read.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for without end
            raise OSError("it is not a regular file")
        with large_images(any_size):
            if is_foreign(file):
                with open_geo(file) as raster:
                    _refuse_bomb(raster.size)
                    return raster.size
            with Image.open(file, formats=FORMATS) as image:
                check_mode(image, file)
                ending, turned = ENDINGS.get(image.format or ""), orientation(image) >= 5
                whole = ending is None or ends_with(file, ending)
                if not whole or file.stat().st_size < least_bytes(image):
                    require_memory(image)
                    image.load()
                # of which Pillow gives the upright size
                (width, height), turned = (image.size, turned and image.format != "TIFF")
    except UNREADABLE as error:
        raise undecodable(file, error) from error
    return (width, height) if turned else (height, width)


def read_image(file: Path) -> Tensor:
    """Decode an image file to a uint8 tensor [3, H, W] in RGB, upright; grey is repeated, transparency and
    further bands dropped.

    Raises:
        DataError: the image cannot be decoded, or needs rasterio, which is not installed.
    """
    try:
        if is_windowed(file) or is_foreign(file):
            return _read_foreign(file)
        with open_image(file) as image:
            check_mode(image, file)
            if bits_of(image) == 8:
                pixels = np.array(upright(image).convert("RGB"))
                return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
            if image.mode not in DEEP:
                return _read_foreign(file)
            band = np.asarray(upright(image))[None]
            return as_rgb(stretch(band, limits_of(band)))
    except UNREADABLE as error:
        raise undecodable(file, error) from error


def orientation(image: Image.Image) -> int:
    """EXIF orientation of an opened image, 1 to 8; 1 is upright, from 5 on width and height are exchanged.

    Told from the header alone: Pillow's own ``getexif`` would decode a PNG to see whether something comes
    after its pixels.
    """
    return int(Image.Image.getexif(image).get(ORIENTATION, 1))


def upright(image: Image.Image) -> Image.Image:
    """An opened image, turned as :func:`orientation` says; Pillow itself turns a TIFF, when it is decoded."""
    if image.format == "TIFF":
        image.load()
        return image
    return image if orientation(image) == 1 else ImageOps.exif_transpose(image)


@contextlib.contextmanager
def open_image(file: Path) -> Iterator[Image.Image]:
    """Open an image with Pillow.

    A TIFF file that is to be turned is opened from memory: Pillow 13 maps files with uncompressed pixels, and
    then garbles those that it turns.
    """
    with Image.open(file, formats=FORMATS) as image:
        if image.format != "TIFF" or orientation(image) == 1:
            yield image
            return
    with Image.open(io.BytesIO(file.read_bytes()), formats=FORMATS) as image:
        yield image


def is_windowed(file: Path) -> bool:
    """Whether a file is read by rasterio, which decodes windows by themselves: a TIFF file, where rasterio is
    installed.

    Not if it is to be shown turned or mirrored, or has values of fewer than 8 bits or white as 0: rasterio
    gives such pixels as they are stored.

    Raises:
        OSError: it cannot be read at all.
    """
    if file.suffix.lower() not in TIFF or rasterio() is None or not is_text(str(file)):
        return False  # rasterio takes no names that are not UTF-8
    if is_foreign(file):
        return True
    with large_images(), Image.open(file, formats=FORMATS) as image:
        tags = getattr(image, "tag_v2", {})
        stored = tags.get(BITS_PER_SAMPLE, (1,))
        depth = min(stored) if isinstance(stored, tuple) else stored
        return (
            image.mode in MODES
            and orientation(image) == 1
            and depth >= 8
            and tags.get(PHOTOMETRIC) != WHITE_IS_ZERO
        )


def is_deep(file: Path) -> bool:
    """Whether an image has more than 8 bits a channel, or is of a kind that only rasterio reads.

    Raises:
        OSError: it cannot be read at all.
    """
    if is_foreign(file):
        return True
    with open_image(file) as image:
        return bits_of(image) > 8


def is_foreign(file: Path) -> bool:
    """Whether it is a TIFF file that Pillow does not know, as most with several deep bands are."""
    if file.suffix.lower() not in TIFF:
        return False
    try:
        # whoever decodes it says whether it is too large
        with large_images(), Image.open(file, formats=FORMATS):
            return False
    except UnidentifiedImageError:
        with file.open("rb") as stream:
            return stream.read(4) in TIFF_STARTS


def _read_foreign(file: Path) -> Tensor:
    with open_geo(file) as raster:
        _refuse_bomb(raster.size)
        return raster.read(0, 0, raster.size[1], raster.size[0])


def _refuse_bomb(size: tuple[int, int]) -> None:
    """What Pillow does on opening, for a file of (height, width) pixels that only rasterio opens."""
    if (pixels := math.prod(size)) > (limit := 2 * (Image.MAX_IMAGE_PIXELS or LARGEST)):
        raise Image.DecompressionBombError(f"Image size ({pixels} pixels) exceeds limit of {limit} pixels")


def require_memory(image: Image.Image) -> None:
    """Refuse an opened image that does not fit into memory once it is decoded: a file of some bytes can say
    that it has billions of pixels.

    Raises:
        OSError: with how much it needs.
    """
    needed, free = math.prod(image.size) * BYTES_PER_PIXEL.get(image.mode, 4), free_memory()
    if needed > free:
        raise OSError(
            f"{image.width} x {image.height} pixels need {needed / 1e9:.1f} GB to be decoded at once, "
            f"{free / 1e9:.1f} GB are free"
        )


def check_mode(image: Image.Image, file: Path) -> None:
    """Raise DataError where Pillow opened an image whose pixels are nothing that can be shown as RGB."""
    if image.mode not in MODES:
        raise DataError(
            f"{file}: images must be grey, RGB or have bands of numbers, got PIL mode {image.mode}; convert "
            "the image to RGB"
        )


def not_read(file: Path, kind: str | None = None) -> str:
    """Why an image of one of the other types is not read, for messages; ``kind``: None for that of its
    suffix.
    """
    kind = kind or OTHER_TYPES.get(file.suffix.lower(), file.suffix)
    return (
        f"images must be {', '.join(IMAGE_SUFFIXES)}, this is a {kind} image, which is not read; convert it "
        "to PNG"
    )


def undecodable(file: Path, error: Exception) -> DataError:
    """The error that names a file and why it cannot be decoded."""
    if isinstance(error, DataError):
        return error
    if isinstance(error, Image.DecompressionBombError):
        return DataError(
            f"{file}: the image is too large to decode at once ({' '.join(str(error).split())}); split it "
            "into patches"
        )
    if isinstance(error, UnidentifiedImageError) and (kind := _kind_of(file)):
        return DataError(f"{file}: {not_read(file, kind)}")
    reason = (
        "not an image file that is known"
        if isinstance(error, UnidentifiedImageError)
        else " ".join(str(error).split())
    )
    return DataError(
        f"{file}: images must be decodable, got: {reason}; replace the file or remove it with its label file"
    )


def _kind_of(file: Path) -> str | None:
    """The type of a file that Pillow does not know, by its content or else by its suffix: phones name HEIC
    files .jpg.
    """
    with file.open("rb") as stream:
        head = stream.read(12)
    if head[4:8] == b"ftyp":
        return "AVIF" if head[8:11] == b"avi" else "HEIC"
    return OTHER_TYPES.get(file.suffix.lower()) if head else None


def least_bytes(image: ImageFile.ImageFile) -> int:
    """Bytes that a BMP or TIFF file must have to hold its pixels, told from the header; 0 for other types."""
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        starts, counts = ((tags.get(strips) or tags.get(tiles) or ()) for strips, tiles in PIXEL_TAGS)
        return max((start + count for start, count in zip(starts, counts, strict=False)), default=0)
    tile: Any = image.tile[0] if image.format == "BMP" and image.tile else None
    return int(tile[2] + tile[3][1] * image.height) if tile is not None and tile[0] == "raw" else 0


def ends_with(file: Path, ending: bytes) -> bool:
    """Whether these are a file's last bytes."""
    with file.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - len(ending)))
        return stream.read() == ending
