"""Small data folders in every format that there is a reader of, for the exam of readers and for planted
faults.

Each writer puts one split into a folder, images included: ``write(root, split, images)``, where ``images``
has the objects of each image by the image's name, and an object is (corners, class name, difficult). Called
again for another split, it adds that one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import torch
import yaml
from PIL import Image

from dbf_ray.data.readers.dior import CORNERS
from dbf_ray.data.readers.hrsc import BOX, TYPES
from dbf_ray.geometry import corners_to_boxes

Obj = tuple[tuple[float, ...], str, bool]
Images = dict[str, list[Obj]]
SIZE = (120, 160)  # height, width
UNKNOWN_TYPE = "100000001"  # "ship"


def write_images(folder: Path, names: Sequence[str], suffix: str) -> None:
    """An image of noise for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        pixels = np.random.default_rng(sum(os.fsencode(name))).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{name}{suffix}")


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def write_dota(root: Path, split: str, images: Images) -> None:
    write_images(root / split / "images", list(images), ".png")
    for name, objects in images.items():
        lines = [
            f"{' '.join(f'{value:.4f}' for value in corners)} {label} {int(difficult)}\n"
            for corners, label, difficult in objects
        ]
        write_text(
            root / split / "labelTxt" / f"{name}.txt",
            "".join(["imagesource:generated\n", "gsd:0.5\n", *lines]),
        )


def write_dior(root: Path, split: str, images: Images) -> None:
    write_images(
        root / ("JPEGImages-test" if split == "test" else "JPEGImages-trainval"), list(images), ".jpg"
    )
    write_text(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}\n" for name in images))
    for name, objects in images.items():
        inner = "".join(dior_object(*one) for one in objects)
        size = (
            f"  <size>\n    <width>{SIZE[1]}</width>\n    <height>{SIZE[0]}</height>\n    "
            f"<depth>3</depth>\n  </size>\n"
        )
        head = '<?xml version="1.0" encoding="UTF-8"?>\n'
        text = f"{head}<annotation>\n  <filename>{name}.jpg</filename>\n{size}{inner}</annotation>\n"
        write_text(root / "Annotations" / "Oriented Bounding Boxes" / f"{name}.xml", text)


def dior_object(corners: Sequence[float], label: str, difficult: bool) -> str:
    box = "".join(f"      <{tag}>{value:.4f}</{tag}>\n" for tag, value in zip(CORNERS, corners, strict=True))
    head = f"    <name>{escape(label)}</name>\n    <difficult>{int(difficult)}</difficult>\n"
    return f"  <object>\n{head}    <robndbox>\n{box}    </robndbox>\n  </object>\n"


def write_hrsc(root: Path, split: str, images: Images) -> None:
    """Objects whose class is none of the types are "ship"."""
    write_images(root / "FullDataSet" / "AllImages", list(images), ".bmp")
    write_text(root / "ImageSets" / f"{split}.txt", "".join(f"{name}\n" for name in images))
    for name, objects in images.items():
        inner = "".join(hrsc_object(*one) for one in objects)
        text = (
            f"<HRSC_Image>\n  <Img_ID>{name}</Img_ID>\n  <HRSC_Objects>\n{inner}  "
            f"</HRSC_Objects>\n</HRSC_Image>\n"
        )
        write_text(root / "FullDataSet" / "Annotations" / f"{name}.xml", text)


def hrsc_object(corners: Sequence[float], label: str, difficult: bool) -> str:
    number = next((number for number, name in TYPES.items() if name == label), UNKNOWN_TYPE)
    [[cx, cy, w, h, degrees]] = corners_to_boxes(torch.tensor([corners], dtype=torch.float64)).tolist()
    box = "".join(
        f"      <{tag}>{value:.6f}</{tag}>\n"
        for tag, value in zip(BOX, (cx, cy, w, h, -math.radians(degrees)), strict=True)
    )
    head = (
        f"      <Class_ID>{number}</Class_ID>\n      <truncated>0</truncated>\n      "
        f"<difficult>{int(difficult)}</difficult>\n"
    )
    return f"    <HRSC_Object>\n{head}{box}    </HRSC_Object>\n"


def write_yolo_obb(root: Path, split: str, images: Images) -> None:
    """Names are kept in data.yaml in order of their coming; the format has no flag for difficult objects."""
    file = root / "data.yaml"
    names = list(yaml.safe_load(file.read_text())["names"].values()) if file.is_file() else []
    names = list(dict.fromkeys([*names, *(label for objects in images.values() for _, label, _ in objects)]))
    write_images(root / "images" / split, list(images), ".png")
    write_text(
        file,
        yaml.safe_dump(
            {"path": ".", split: f"images/{split}", "names": dict(enumerate(names))}, sort_keys=False
        ),
    )
    for name, objects in images.items():
        lines = [
            f"{names.index(label)} "
            f"{' '.join(f'{value / SIZE[1 - place % 2]:.8f}' for place, value in enumerate(corners))}\n"
            for corners, label, _ in objects
        ]
        write_text(root / "labels" / split / f"{name}.txt", "".join(lines))


def write_coco(root: Path, split: str, images: Images) -> None:
    """Names in order of their coming, ids from 1."""
    write_images(root / "images" / split, list(images), ".png")
    names = list(dict.fromkeys(label for objects in images.values() for _, label, _ in objects))
    entries = [
        {"id": 10 + key, "file_name": f"{name}.png", "width": SIZE[1], "height": SIZE[0]}
        for key, name in enumerate(images)
    ]
    annotations = [
        {
            "image_id": 10 + key,
            "category_id": 1 + names.index(label),
            "segmentation": [list(corners)],
            "iscrowd": 0,
            "difficult": int(difficult),
        }
        for key, objects in enumerate(images.values())
        for corners, label, difficult in objects
    ]
    content = {
        "info": {},
        "images": entries,
        "annotations": [{"id": 100 + key, **annotation} for key, annotation in enumerate(annotations)],
        "categories": [{"id": 1 + key, "name": name} for key, name in enumerate(names)],
    }
    write_text(root / "annotations" / f"{split}.json", json.dumps(content, indent=1))


@dataclass(frozen=True)
class Format:
    """A format as the exam knows it.

    Attributes:
        write: puts a split into a folder.
        labels: the label file of an image, as a template of its path with {split} and {name}.
        difficult: whether the format can say it.
        recognised: as which format.
    """

    write: Callable[[Path, str, Images], None]
    labels: str
    difficult: bool
    recognised: str

    def label_file(self, root: Path, split: str, name: str) -> Path:
        return root / self.labels.format(split=split, name=name)


FORMATS = {
    "dota": Format(write_dota, "{split}/labelTxt/{name}.txt", True, "dota"),
    "dior": Format(write_dior, "Annotations/Oriented Bounding Boxes/{name}.xml", True, "dior"),
    "hrsc": Format(write_hrsc, "FullDataSet/Annotations/{name}.xml", True, "hrsc"),
    "hrsc_types": Format(write_hrsc, "FullDataSet/Annotations/{name}.xml", True, "hrsc"),
    "yolo_obb": Format(write_yolo_obb, "labels/{split}/{name}.txt", False, "yolo_obb"),
    "coco": Format(write_coco, "annotations/{split}.json", True, "coco"),
}
