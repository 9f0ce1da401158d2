"""A data set of boxes alone, one on each image of 64 pixels, that can be written as DOTA's format too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from dbf_ray.data.samples import Sample, Target, make_target
from dbf_ray.geometry import boxes_to_corners

SIDE = 64


class BoxDataset:
    """Objects (width, height, degrees) by class, each in the middle of an image of its own."""

    def __init__(
        self, objects: Mapping[str, Sequence[tuple[float, float, float]]], difficult: bool = False
    ) -> None:
        self.classes = list(objects)
        self.rows = [(self.classes.index(name), one) for name, several in objects.items() for one in several]
        self.rows = self.rows or [(-1, (0.0, 0.0, 0.0))]
        self.difficult = difficult
        self.image_ids = [f"{number:05d}" for number in range(len(self.rows))]
        self.sizes = [(SIDE, SIDE)] * len(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def flags(self, index: int) -> tuple[list[int], list[bool]]:
        label, _ = self.rows[index]
        return ([], []) if label < 0 else ([label], [self.difficult])

    def target(self, index: int) -> Target:
        labels, difficult = self.flags(index)
        box = [[SIDE / 2, SIDE / 2, *self.rows[index][1]]] if labels else []
        boxes = torch.tensor(box).reshape(-1, 5)
        return make_target(boxes, labels, difficult, self.image_ids[index], (SIDE, SIDE))

    def load(self, index: int) -> Sample:
        return torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), self.target(index)

    def written(self, root: Path) -> Path:
        """As train and val in DOTA's format."""
        for split in ("train", "val"):
            for name in ("images", "labelTxt"):
                (root / split / name).mkdir(parents=True)
            for index in range(len(self) if split == "train" else 2):
                image = Image.new("RGB", (SIDE, SIDE), (index, len(split), 0))
                image.save(root / split / "images" / f"{self.image_ids[index]}.png")
                label, _ = self.rows[index]
                corners = boxes_to_corners(self.target(index)["boxes"].as_subclass(torch.Tensor))[0].reshape(
                    8
                )
                line = " ".join(f"{value:.2f}" for value in corners.tolist())
                file = root / split / "labelTxt" / f"{self.image_ids[index]}.txt"
                file.write_text(f"{line} {self.classes[label]} 0\n")
        return root
