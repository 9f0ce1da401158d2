"""Draws augmentations.png: a generated scene in each of the eight views, and some random augmentations of it,
with the boxes that move along.

Run from the repository's root: ``python docs/pictures/draw_augmentations.py``
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from dbf_ray.data import Sample, SyntheticDataset
from dbf_ray.data.augment import Augmentation
from dbf_ray.data.seeds import AUGMENT, Stream
from dbf_ray.data.transforms import ORIENTATIONS, flip
from dbf_ray.geometry import boxes_to_corners
from dbf_ray.reports.scenes import draw_scene, outlines, scene_grid

SIZE = 176
RANDOM = {
    "rotate 180": Augmentation(rotate=180, rotate_probability=1.0),
    "scales [0.5, 1.5]": Augmentation(scales=(0.5, 1.5)),
    "colours 0.4, hue 0.1": Augmentation(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    "all of them": Augmentation(180, 1.0, (0.5, 1.5), 0.4, 0.4, 0.4, 0.1),
}


def drawn(sample: Sample, classes: list[str]) -> Image.Image:
    """A sample with the outlines of its objects, coloured by class."""
    image, target = sample
    objects = outlines(boxes_to_corners(target["boxes"]).numpy(), target["labels"].numpy())
    return draw_scene(image.permute(1, 2, 0).numpy(), objects, classes=classes, captions=False)


def main() -> None:
    """Orientations first, then two draws of each augmentation."""
    dataset = SyntheticDataset("val", 4, SIZE)
    image, target = dataset.load(1)
    pictures = {name: flip(image, target, name) for name in ORIENTATIONS}
    for name, augmentation in RANDOM.items():
        for draw in (1, 2):
            pictures[name + " " * draw] = augmentation(image, target, Stream(AUGMENT, 0, draw, 1))
    grid = scene_grid(
        [drawn(sample, dataset.classes) for sample in pictures.values()], columns=4, titles=list(pictures)
    )
    grid.quantize(128).save(Path(__file__).with_name("augmentations.png"), optimize=True)


if __name__ == "__main__":
    main()
