"""What a data set is, in a few bytes, and what has changed since.

Of each image its name, size, the length and the last bytes of its file (a PNG's hold a checksum of all; of a
BMP or TIFF file also bytes spread over it), and all that was read of its labels. Not all pixels, no places,
no times: data that are moved or copied stay the same, and looking costs no more than reading headers does.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dbf_ray.data.readers import LabelledObject
from dbf_ray.data.samples import Dataset, Subset, sizes_of

Facts = dict[str, Any]
"""``classes``, names in label order; ``images``, by name ``[height, width, file, labels]``, None for what is
not known: values that JSON holds.
"""
TAIL = 256  # bytes of a file's end
RAW = (".bmp", ".tif", ".tiff")  # often not compressed: their ends say nothing of the rest
SPOTS = 16  # of as many bytes, evenly spread over such files
PIXEL_DIGITS = 3  # after the point: what is computed rounds otherwise on another machine
LENGTH = 16  # hexadecimal digits of a digest


def data_digest(dataset: Dataset) -> str:
    """A digest of a data set: the same for the same images in the same order with the same labels and
    classes, wherever they lie; see the module's text for what is looked at.
    """
    return digest_of(data_facts(dataset))


def data_facts(dataset: Dataset) -> Facts:
    """What the digest is of."""
    if isinstance(dataset, Subset):
        whole = data_facts(dataset.dataset)
        return {**whole, "images": {name: whole["images"][name] for name in dataset.image_ids}}
    count = len(dataset)
    sizes: Sequence[Sequence[int | None]] = sizes_of(dataset) or [(None, None)] * count
    files = [_of_file(file) for file in getattr(dataset, "files", [])] or [None] * count
    labels = getattr(dataset, "label_digests", None) or [None] * count
    rows = zip(dataset.image_ids, sizes, files, labels, strict=True)
    images = {name: [*size, file, written] for name, size, file, written in rows}
    return {"classes": list(dataset.classes), "images": images}


def text_facts(files: Mapping[str, Path]) -> Facts:
    """Facts of text files by name."""
    return {
        "classes": [],
        "images": {name: [None, None, None, _short(file.read_bytes())] for name, file in files.items()},
    }


def label_digest(objects: Iterable[LabelledObject]) -> str:
    """A digest of an image's objects in their order: class, corners to a thousandth of a pixel, difficult."""
    rows = [
        (one.name, [round(value, PIXEL_DIGITS) + 0.0 for value in one.corners], one.difficult)
        for one in objects
    ]
    return _short(json.dumps(rows).encode())


def digest_of(facts: Mapping[str, Any]) -> str:
    """A digest of facts, or of several by name."""
    return _short(json.dumps(facts).encode())


def changes(before: Mapping[str, Facts], now: Mapping[str, Facts]) -> list[str]:
    """A phrase for each way in which data sets differ from what they were, each with the first of the images;
    both by the name of their split.
    """
    nothing: Facts = {"classes": [], "images": {}}
    return [
        f"{split}: {phrase}"
        for split in dict.fromkeys([*before, *now])
        for phrase in _differences(before.get(split, nothing), now.get(split, nothing))
    ]


def _differences(before: Facts, now: Facts) -> list[str]:
    old, new = before["images"], now["images"]
    both = [name for name in new if name in old]
    found = [
        (_images([name for name in new if name not in old]), "more"),
        (_images([name for name in old if name not in new]), "fewer"),
        (_images([name for name in both if list(old[name][:3]) != list(new[name][:3])]), "changed"),
    ]
    phrases = [f"{images} {how}" for images, how in found if images]
    if labels := _images([name for name in both if old[name][3] != new[name][3]]):
        phrases.append(f"labels changed of {labels}")
    if before["classes"] != now["classes"]:
        was, are = (", ".join(facts["classes"]) or "none" for facts in (before, now))
        phrases.append(f"classes were {was}, now {are}")
    if not phrases and list(old) != list(new):
        phrases.append("the images are listed in another order")
    return phrases


def _images(names: Sequence[str]) -> str:
    """How many, and which is the first; empty of none."""
    if len(names) > 1:
        return f"{len(names)} images (the first is {names[0]})"
    return f"1 image ({names[0]})" if names else ""


def _of_file(file: Path | str) -> str | None:
    """A file's length and a checksum of its end, and of spots before it where it may be raw."""
    spots = SPOTS if os.fspath(file).lower().endswith(RAW) else 1
    try:
        with open(file, "rb", buffering=0) as stream:
            length = stream.seek(0, os.SEEK_END)
            checksum = 0
            for spot in range(1, spots + 1):
                stream.seek(max(0, length * spot // spots - TAIL))
                checksum = zlib.crc32(stream.read(TAIL), checksum)
            return f"{length}-{checksum:08x}"
    except OSError:  # gone; whoever reads it says so
        return None


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:LENGTH]
