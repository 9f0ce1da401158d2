"""Small data folders and data sets for the tests of this part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dbf_ray.data import Sample, make_target

LabelFiles = dict[str, str | bytes | None]


@pytest.fixture
def make_root(tmp_path: Path) -> Callable[..., Path]:
    """Write ROOT/SPLIT/images/NAME.png and labelTxt/NAME.txt for each (name, text); text None: no label
    file.
    """

    def make(files: LabelFiles, split: str | None = "train") -> Path:
        folder = tmp_path / split if split else tmp_path
        for name in ("images", "labelTxt"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            noise = np.random.default_rng(len(name)).integers(0, 255, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / "images" / f"{name}.png")
            if text is not None:
                (folder / "labelTxt" / f"{name}.txt").write_bytes(
                    text if isinstance(text, bytes) else text.encode()
                )
        return tmp_path

    return make


class CountingDataset:
    """Images that tell their index: every pixel of image i is i; one object an image."""

    def __init__(self, images: int) -> None:
        self.classes = ["thing"]
        self.image_ids = [f"image{index}" for index in range(images)]

    def __len__(self) -> int:
        return len(self.image_ids)

    def load(self, index: int) -> Sample:
        image = torch.full((3, 32, 48), index, dtype=torch.uint8)
        boxes = torch.tensor([[20.0, 10.0, 12.0, 4.0, 30.0]])
        return image, make_target(boxes, [0], [False], self.image_ids[index], (32, 48))


@pytest.fixture
def counting() -> Callable[[int], CountingDataset]:
    return CountingDataset
