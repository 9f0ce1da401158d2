"""A clean data set of generated scenes in DOTA's format, and faults to plant in it, each with what a check
must say of it.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance

from dbf_ray.data import SyntheticDataset
from dbf_ray.data.readers.dota import format_line
from dbf_ray.geometry import boxes_to_corners

SIDE = 128
SPLITS = {"train": 36, "val": 14}
# as DOTA calls what the scenes show
NAMES = [
    "plane",
    "ship",
    "small-vehicle",
    "large-vehicle",
    "storage-tank",
    "harbor",
]
HEADER = "imagesource:drawn\ngsd:0.5\n"
INSIDE = "40 40 90 40 90 60 40 60 ship 0"


def write_clean(root: Path) -> Path:
    """train/, val/ and test/, which has no labels."""
    for split, count in (*SPLITS.items(), ("test", 4)):
        first = SPLITS["val"] if split == "test" else 0
        scenes = SyntheticDataset("train" if split == "train" else "val", first + count, SIDE)
        (root / split / "images").mkdir(parents=True)
        if split != "test":
            (root / split / "labelTxt").mkdir()
        for index in range(count):
            image, target = scenes.load(first + index)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(
                root / split / "images" / f"{split}{index:02d}.png"
            )
            if split == "test":
                continue
            corners = boxes_to_corners(target["boxes"].double())
            lines = [
                format_line(tuple(row), NAMES[label], int(hard)) + "\n"
                for row, label, hard in zip(
                    corners.tolist(), target["labels"].tolist(), target["difficult"].tolist(), strict=True
                )
            ]
            (root / split / "labelTxt" / f"{split}{index:02d}.txt").write_text("".join([HEADER, *lines]))
    return root


def write_one(
    root: Path, rows: list[tuple[list[float], str, int]], size: tuple[int, int] = (200, 300)
) -> Path:
    """A set of one image of noise that is not divided; objects are (box, class, difficult)."""
    (root / "images").mkdir(parents=True)
    (root / "labelTxt").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "images" / "one.png")
    corners = boxes_to_corners(torch.tensor([row[0] for row in rows], dtype=torch.float64)).tolist()
    text = "".join(
        f"{' '.join(map(str, c))} {name} {hard}\n" for c, (_, name, hard) in zip(corners, rows, strict=True)
    )
    (root / "labelTxt" / "one.txt").write_text(text)
    return root


@dataclass(frozen=True)
class Fault:
    """A fault and its report. A training refuses it, unless it is a warning or ``told``.

    Attributes:
        name: for the tests' output.
        kind: which it must be reported as.
        plant: puts it into ROOT, at the image of a number; returns (file, line) that must be reported.
        says: what the message must hold.
        warning: it is no error.
        told: an error that a training takes, or cannot see.
    """

    name: str
    kind: str
    plant: Callable[[Path, int], tuple[Path, int | None]]
    says: str
    warning: bool = False
    told: bool = False


def image(root: Path, number: int, split: str = "train") -> Path:
    return root / split / "images" / f"{split}{number:02d}.png"


def labels(root: Path, number: int, split: str = "train") -> Path:
    return root / split / "labelTxt" / f"{split}{number:02d}.txt"


def line(text: str, split: str = "train") -> Callable[[Path, int], tuple[Path, int | None]]:
    """Appends a line."""

    def plant(root: Path, number: int) -> tuple[Path, int | None]:
        file = labels(root, number % SPLITS[split], split)
        file.write_text(file.read_text() + text + "\n")
        return file, len(file.read_text().splitlines())

    return plant


def twice(text: str, other: str) -> Callable[[Path, int], tuple[Path, int | None]]:
    """Appends an object twice, the second time written otherwise."""

    def plant(root: Path, number: int) -> tuple[Path, int | None]:
        line(text)(root, number)
        return line(other)(root, number)

    return plant


def missing_labels(root: Path, number: int) -> tuple[Path, int | None]:
    labels(root, number).unlink()
    return labels(root, number), None


def missing_image(root: Path, number: int) -> tuple[Path, int | None]:
    image(root, number).unlink()
    return labels(root, number), None


def orphan(root: Path, number: int) -> tuple[Path, int | None]:
    file = labels(root, number).with_name(f"nobody{number}.txt")
    file.write_text(INSIDE + "\n")
    return file, None


def noise(file: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(file)


def misplaced(root: Path, number: int) -> tuple[Path, int | None]:
    """An image in a sub-folder without labels, and labels of its name above; DOTA's want a file for each."""
    noise(image(root, number).parent / f"more{number}" / f"lost{number}.png", 100 + number)
    file = labels(root, number).with_name(f"lost{number}.txt")
    file.write_text("5 5 30 5 30 20 5 20 ship 0\n")
    return file, None


def unlabelled_below(root: Path, number: int) -> tuple[Path, int | None]:
    noise(image(root, number).parent / f"deep{number}" / "one.png", 200 + number)
    return labels(root, number).parent / f"deep{number}" / "one.txt", None


def unread(suffix: str) -> Callable[[Path, int], tuple[Path, int | None]]:
    """An image with labels, of a type that is not read."""

    def plant(root: Path, number: int) -> tuple[Path, int | None]:
        file = image(root, number).with_name(f"web{number}{suffix}")
        file.write_bytes(b"RIFF....WEBP")
        labels(root, number).with_name(f"web{number}.txt").write_text(INSIDE + "\n")
        return file, None

    return plant


def same_name(root: Path, number: int) -> tuple[Path, int | None]:
    file = image(root, number).with_suffix(".tif")
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(file)
    return file, None


def latin(root: Path, number: int) -> tuple[Path, int | None]:
    labels(root, number).write_bytes("# h\xe4fen\n".encode("latin-1"))
    return labels(root, number), None


def broken(change: Callable[[bytes], bytes]) -> Callable[[Path, int], tuple[Path, int | None]]:
    def plant(root: Path, number: int) -> tuple[Path, int | None]:
        file = image(root, number)
        file.write_bytes(change(file.read_bytes()))
        return file, None

    return plant


def blank(root: Path, number: int) -> tuple[Path, int | None]:
    Image.new("RGB", (SIDE, SIDE), (0, 0, 0)).save(image(root, number))
    return image(root, number), None


def again(root: Path, number: int) -> tuple[Path, int | None]:
    """The same pixels under another name and in another file format, in the same split."""
    file = image(root, number).with_name(f"zz{number}.bmp")
    Image.open(image(root, number)).save(file)
    shutil.copy(labels(root, number), labels(root, number).with_name(f"zz{number}.txt"))
    return file, None


def leak(change: Callable[[Image.Image], Image.Image]) -> Callable[[Path, int], tuple[Path, int | None]]:
    """A training image, altered, as an image of val without objects."""

    def plant(root: Path, number: int) -> tuple[Path, int | None]:
        with Image.open(image(root, number)) as picture:
            altered = change(picture.convert("RGB"))
        file = root / "val" / "images" / f"leak{number}.png"
        altered.save(file)
        (root / "val" / "labelTxt" / f"leak{number}.txt").write_text("")
        return file, None

    return plant


def jpeg(picture: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=60)
    return Image.open(stream).convert("RGB")


def half(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC)


def brighter(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1.15)


def cropped(picture: Image.Image) -> Image.Image:
    """2 % less from the left and from the top."""
    return picture.crop(
        (round(0.02 * picture.width), round(0.02 * picture.height), picture.width, picture.height)
    )


def mirrored(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def turned(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.ROTATE_90)


def everything(picture: Image.Image) -> Image.Image:
    return jpeg(half(turned(brighter(cropped(picture)))))


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "encoded again": jpeg,
    "half as large": half,
    "brighter": brighter,
    "cropped": cropped,
    "mirrored": mirrored,
    "turned": turned,
    "all at once": everything,
}

FAULTS = [
    Fault("too few fields", "syntax", line("10 10 30 10 ship"), "got 5 fields"),
    Fault("flag", "syntax", line("40 40 90 40 90 60 40 60 ship 7"), "difficult flag must be"),
    Fault("not UTF-8", "syntax", latin, "UTF-8"),
    Fault("not finite", "coordinate", line("40 40 90 nan 90 60 40 60 ship 0"), "'nan'"),
    Fault("missing labels", "missing_labels", missing_labels, "every image needs a label file"),
    Fault("missing image", "orphan_labels", missing_image, "every label file needs an image", True),
    Fault("orphan", "orphan_labels", orphan, "every label file needs an image", True),
    Fault("same name", "duplicate_name", same_name, "differ in more than their suffix"),
    Fault(
        "truncated image",
        "broken_image",
        broken(lambda content: content[: len(content) // 2]),
        "must be decodable",
    ),
    Fault("empty image", "broken_image", broken(lambda content: b""), "must be decodable"),
    Fault(
        "text as image",
        "broken_image",
        broken(lambda content: b"<html>not found</html>"),
        "must be decodable",
    ),
    Fault(
        "misspelled",
        "misspelled_class",
        line("40 40 90 40 90 60 40 60 shipp 0"),
        "did you mean 'ship'?",
        told=True,
    ),
    Fault(
        "capitals",
        "misspelled_class",
        line("40 40 90 40 90 60 40 60 Plane 0"),
        "did you mean 'plane'?",
        told=True,
    ),
    Fault(
        "only in val",
        "unknown_class",
        line("40 40 90 40 90 60 40 60 helicopter 0", "val"),
        "those of the training split",
    ),
    Fault("no area", "degenerate", line("40 40 90 40 70 40 50 40 ship 0"), "must have an area"),
    Fault(
        "outside",
        "outside",
        line("140 40 190 40 190 60 140 60 ship 0"),
        "100% of 'ship' at (165, 50)",
        told=True,
    ),
    Fault(
        "outside, difficult",
        "outside",
        line("140 40 190 40 190 60 140 60 ship 1"),
        "100% of 'ship' at (165, 50)",
        told=True,
    ),
    Fault("labels of a sub-folder", "missing_labels", unlabelled_below, "every image needs a label file"),
    Fault("WebP", "unread_image", unread(".webp"), "this is a WebP image, which is not read; convert"),
    Fault(
        "mostly outside", "outside", line("-200 20 300 20 300 60 -200 60 ship 0"), "74% of 'ship'", told=True
    ),
    Fault("twice", "duplicate_object", twice(INSIDE, INSIDE), "same box as that of line", told=True),
    Fault(
        "twice, turned",
        "duplicate_object",
        twice(INSIDE, "90 60 40 60 40 40 90 40 ship 1"),
        "IoU 1.000",
        told=True,
    ),
    Fault(
        "nearly twice",
        "duplicate_object",
        twice(INSIDE, "40 40 90.2 40 90.2 60 40 60 ship 0"),
        "IoU 0.996",
        told=True,
    ),
    Fault("crossing", "self_crossing", line("40 40 90 60 90 40 40 60 ship 0"), "sides cross", True),
    Fault("tiny", "tiny", line("40 40 90 40 90 41 40 41 ship 0"), "50 x 1 for 'ship'", True),
    Fault("same pixels", "duplicate_image", again, "has the same pixels", True),
    Fault("blank", "blank_image", blank, "one colour", True),
    Fault("leak of pixels", "leak", leak(lambda picture: picture), "has the same pixels", told=True),
    *(
        Fault(f"leak, {name}", "leak", leak(change), "is nearly this image", told=True)
        for name, change in ALTERED.items()
    ),
]
