"""Draws a grid of validation images with what a checkpoint detects on them (coloured) and what is there
(dashed).

Run from the repository's root, for example the picture in the README:
``python -m docs.pictures.draw_detections CHECKPOINT docs/pictures/demo_scenes.png --images 6``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from dbf_ray.build.data import make_split
from dbf_ray.config import Config, with_overrides
from dbf_ray.data import EvalView
from dbf_ray.evaluate import load_detector
from dbf_ray.geometry import boxes_to_corners
from dbf_ray.reports.scenes import draw_scene, outlines, scene_grid
from dbf_ray.training.checkpoint import read_record, whole_checkpoint


def draw(checkpoint: Path, out: Path, images: int, root: Path | None, threshold: float) -> None:
    """Evaluate the first ``images`` validation images and save the grid as PNG."""
    checkpoint = whole_checkpoint(checkpoint)
    config = Config.model_validate(read_record(checkpoint)["config"])
    if root is not None:
        config = with_overrides(config, {"data.root": str(root)})
    detector, classes = load_detector(checkpoint, config)
    view = EvalView(make_split(config.data, "val", classes), config.data.image_size)
    pictures = []
    for index in range(min(images, len(view))):
        image, target = view[index]
        with torch.no_grad():
            found = detector([image])[0]
        pictures.append(
            draw_scene(
                image.permute(1, 2, 0).numpy(),
                outlines(
                    boxes_to_corners(found["boxes"]).cpu(), found["labels"].cpu(), found["scores"].cpu()
                ),
                outlines(boxes_to_corners(target["boxes"].as_subclass(torch.Tensor)), target["labels"]),
                classes,
                score_threshold=threshold,
                scale=max(1.0, 400 / config.data.image_size),
            )
        )
    scene_grid(pictures).save(out, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--root", type=Path, default=None)
    parser.add_argument("--threshold", type=float, default=0.3)
    options = parser.parse_args()
    draw(options.checkpoint, options.out, options.images, options.root, options.threshold)
