"""How long a plan takes, step by step, on a data set of many images.

The set is written once into a temporary folder: labels of generated scenes, moved about, on small images of
one colour. Planned for each of the detectors with all eight orientations.

python -m benchmarks.plan --json                                   2,000 images, three detectors
python -m benchmarks.plan --images 20000 --detectors oriented_rcnn
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dbf_ray.api import plan_settings
from dbf_ray.cli.options import make_parser, print_json, run_command
from dbf_ray.data import SyntheticDataset
from dbf_ray.data.patches.split import original_text
from dbf_ray.data.readers import LabelledObject
from dbf_ray.data.transforms import IDENTITY, ORIENTATIONS
from dbf_ray.geometry import boxes_to_corners
from dbf_ray.run.summary import machine, versions

DETECTORS = ("rotated_retinanet", "rotated_fcos", "oriented_rcnn")
FARTHEST = 24.0  # pixels that the objects of a copy are moved along each axis


def write_copies(folder: Path, images: int, scenes: int, side: int) -> int:
    """``images`` images of ``side`` pixels in DOTA's format, with the objects of ``scenes`` generated scenes,
    each time moved a little; returns how many objects there are.
    """
    drawn = SyntheticDataset("train", scenes, side)
    targets = [drawn.load(index)[1] for index in range(scenes)]
    stream = torch.Generator().manual_seed(0)
    count = 0
    for split, many in (("train", images), ("val", max(1, images // 10))):
        for name in ("images", "labelTxt"):
            (folder / split / name).mkdir(parents=True)
        for index in range(many):
            target = targets[index % scenes]
            boxes = target["boxes"].as_subclass(Tensor).double()
            boxes[:, :2] += (torch.rand(2, generator=stream) * 2 - 1) * FARTHEST
            corners = boxes_to_corners(boxes).reshape(-1, 8).tolist()
            names = [drawn.classes[label] for label in target["labels"].tolist()]
            found = [LabelledObject(tuple(points), name) for points, name in zip(corners, names, strict=True)]
            count += len(found)
            (folder / split / "labelTxt" / f"{index:05d}.txt").write_text(original_text(found))
            image = Image.new("RGB", (side, side), (index % 256, index // 256, len(split)))
            image.save(folder / split / "images" / f"{index:05d}.png", compress_level=1)
    return count


def timed_plan(root: Path, detector: str, size: int, backbone: str) -> dict[str, float]:
    """Seconds of each step of a plan, and of all of it."""
    names, steps = ["reading"], [time.perf_counter()]

    def say(line: str) -> None:
        if line.startswith("rule: "):
            names.append(line.removeprefix("rule: "))
            steps.append(time.perf_counter())

    others = [name for name in ORIENTATIONS if name != IDENTITY]
    plan_settings(
        root,
        detector={"name": detector, "backbone": backbone},
        data={"flips": others, "image_size": size},
        progress=say,
    )
    steps.append(time.perf_counter())
    seconds = {name: end - start for name, (start, end) in zip(names, itertools.pairwise(steps), strict=True)}
    return {**seconds, "all": steps[-1] - steps[0]}


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print tables."""
    parser = make_parser("python -m benchmarks.plan", __doc__ or "", sections=None)
    parser.add_argument(
        "--detectors",
        nargs="+",
        default=list(DETECTORS),
        metavar="NAME",
        help=f"which (default: {DETECTORS})",
    )
    parser.add_argument("--images", type=int, default=2000, help="to train on (default: 2000)")
    parser.add_argument("--scenes", type=int, default=60, help="that are copied (default: 60)")
    parser.add_argument("--size", type=int, default=512, help="of the images, pixels (default: 512)")
    parser.add_argument("--backbone", default="mobilenet_v2", help="of the detectors (default: mobilenet_v2)")
    parser.add_argument("--quick", action="store_true", help="20 images, in a few seconds")
    options = parser.parse_args(arguments)
    if options.quick:
        options.images, options.scenes, options.size = 20, 4, 128
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "data"
        count = write_copies(root, options.images, options.scenes, options.size)
        print(f"{options.images} images of {options.size} px, {count} objects with those of val", flush=True)
        for detector in options.detectors:
            rows[detector] = timed_plan(root, detector, options.size, options.backbone)
            print(detector)
            for name, seconds in rows[detector].items():
                print(f"  {seconds:7.2f} s  {name}", flush=True)
    result = {
        "rows": rows,
        "objects": count,
        **{key: getattr(options, key) for key in ("images", "scenes", "size", "backbone")},
        "machine": machine(),
        "versions": versions(),
    }
    if options.json:
        print_json(result)
    return result


if __name__ == "__main__":
    sys.exit(run_command(command))
