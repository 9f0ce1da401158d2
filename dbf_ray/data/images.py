"""Image files: a cheap check before training, and decoding to RGB tensors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dbf_ray.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# The bytes that a complete file ends with.
ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}

_UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError)


def check_image(file: Path) -> tuple[int, int]:
    """Check an image file's header, and that its end is there; a file whose end looks wrong is decoded to find out.

    Returns:
        Its (height, width) in pixels.

    Raises:
        DataError: the image cannot be read, or its pixels are not 8-bit.
    """
    try:
        with Image.open(file) as image:
            _check_mode(image, file)
            ending, (width, height) = ENDINGS.get(image.format or ""), image.size
    except _UNREADABLE as error:
        raise _undecodable(file, error) from error
    if ending is not None and not _ends_with(file, ending):
        read_image(file)
    return height, width


def read_image(file: Path) -> Tensor:
    """Decode an image file to a uint8 tensor [3, H, W] in RGB; grey is repeated, transparency dropped.

    Raises:
        DataError: the image cannot be decoded, or its pixels are not 8-bit.
    """
    try:
        with Image.open(file) as image:
            _check_mode(image, file)
            pixels = np.array(image.convert("RGB"))
    except _UNREADABLE as error:
        raise _undecodable(file, error) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _check_mode(image: Image.Image, file: Path) -> None:
    if image.mode not in MODES:
        raise DataError(f"{file}: images must have 8 bits a channel, got PIL mode {image.mode}; convert the image to 8-bit RGB")


def _ends_with(file: Path, ending: bytes) -> bool:
    with file.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - len(ending)))
        return stream.read() == ending


def _undecodable(file: Path, error: Exception) -> DataError:
    if isinstance(error, DataError):
        return error
    if isinstance(error, Image.DecompressionBombError):
        return DataError(f"{file}: the image is too large to decode at once ({' '.join(str(error).split())}); split it into patches")
    reason = "not an image file that is known" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
    return DataError(f"{file}: images must be decodable, got: {reason}; replace the file or remove it with its label file")
