"""How fast images are cut into patches, read, and fed to a training.

Split: patches per second, whole (reading, cutting, writing PNG), by one process and by all cores; and of a
second run, which finds all done. Loading: images per second of a training loader over one epoch: decoded each
time, kept decoded in memory, with each augmentation, and by loading processes. Ways of loading take turns;
the best round of each counts.

python -m benchmarks.data_throughput --json
python -m benchmarks.data_throughput --root DIR --split-root DIR2 --size 640        on real images
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.data import Dataset, DecodedImages, LabelledDataset, SyntheticDataset, TrainView, train_loader
from dbf_ray.data.augment import Augmentation
from dbf_ray.data.patches.cutting import SplitCounts, SplitSettings, cut_all
from dbf_ray.data.patches.split import original_text, prepare_out, split_work
from dbf_ray.data.readers import READERS, LabelledObject, recognise
from dbf_ray.geometry import boxes_to_corners
from dbf_ray.machine import usable_cpus
from dbf_ray.run.summary import machine, versions

Row = dict[str, Any]
AUGMENTATIONS = {
    "flips": None,
    "scales": Augmentation(scales=(0.5, 1.5)),
    "rotation": Augmentation(rotate=180.0, rotate_probability=1.0),
    "colour": Augmentation(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05),
    "all": Augmentation(
        rotate=180.0, scales=(0.5, 1.5), brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05
    ),
}


def write_scenes(folder: Path, images: int, side: int) -> Path:
    """Generated scenes as a data set in DOTA's format."""
    scenes = SyntheticDataset("train", images, side)
    for name in ("images", "labelTxt"):
        (folder / name).mkdir(parents=True)
    for index, name in enumerate(scenes.image_ids):
        image, target = scenes.load(index)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(
            folder / "images" / f"{name}.png", compress_level=1
        )
        corners = boxes_to_corners(target["boxes"].as_subclass(torch.Tensor).double()).tolist()
        objects = [
            LabelledObject(tuple(points), scenes.classes[label])
            for points, label in zip(corners, target["labels"].tolist(), strict=True)
        ]
        (folder / "labelTxt" / f"{name}.txt").write_text(original_text(objects))
    return folder


def split_rows(root: Path, settings: SplitSettings, scratch: Path) -> Iterator[Row]:
    """One process, all cores, and a run that finds everything done."""
    reader = READERS[recognise(root)]
    for name, workers, again in (
        ("one process", 0, False),
        ("all cores", usable_cpus(), False),
        ("all done before", 0, True),
    ):
        out = scratch / "patches"
        if not again:
            shutil.rmtree(out, ignore_errors=True)
        begun = time.perf_counter()
        plan = split_work(reader, root, out, settings)
        prepare_out(plan, root, out, settings)
        counts = sum(
            (done for done in cut_all(plan.tasks, workers) if isinstance(done, SplitCounts)), SplitCounts()
        )
        seconds = time.perf_counter() - begun
        patches = counts.written + counts.kept
        yield {
            "what": "split",
            "way": name,
            "workers": workers,
            "count": patches,
            "seconds": seconds,
            "per_second": patches / seconds,
        }


def loading_ways(dataset: Dataset, image_size: int) -> dict[str, Callable[[], Any]]:
    """A loader for each way, all over the same images."""
    kept = DecodedImages(dataset, image_size, 1 << 40)
    for index in range(len(dataset)):
        kept[index]

    def loader(
        augmentation: Augmentation | None = None, resized: DecodedImages | None = None, workers: int = 0
    ) -> Callable[[], Any]:
        view = TrainView(dataset, image_size, resized=resized, augmentation=augmentation)
        made = train_loader(view, batch_size=4, workers=workers)
        return lambda: sum(len(images) for images, _ in made.epoch(0))

    cores = usable_cpus()
    ways = {"decoded each time": loader(), f"decoded each time, {cores} processes": loader(workers=cores)}
    ways |= {
        f"kept decoded, {name}": loader(augmentation, kept) for name, augmentation in AUGMENTATIONS.items()
    }
    return ways | {f"kept decoded, all, {cores} processes": loader(AUGMENTATIONS["all"], kept, cores)}


def loading_rows(dataset: Dataset, image_size: int, rounds: int) -> Iterator[Row]:
    """Images per second of each way, the best of ``rounds``."""
    ways = loading_ways(dataset, image_size)
    times: dict[str, list[float]] = {name: [] for name in ways}
    counts = {}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            counts[name] = way()
            times[name].append(time.perf_counter() - begun)
    for name, seconds in times.items():
        yield {
            "what": "load",
            "way": name,
            "count": counts[name],
            "seconds": min(seconds),
            "per_second": counts[name] / min(seconds),
        }


def command(arguments: Sequence[str] | None = None) -> Row:
    """Measure and print a table."""
    parser = make_parser("python -m benchmarks.data_throughput", __doc__ or "")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="data to load, DIR or DIR/train (default: generated scenes)"
    )
    parser.add_argument(
        "--split-root", type=Path, metavar="DIR", help="data to split (default: generated scenes)"
    )
    parser.add_argument("--images", type=int, default=24, help="generated scenes (default: %(default)s)")
    parser.add_argument(
        "--side", type=int, default=1024, help="side of a generated scene in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=512,
        help="side of a patch, and what images are resized to (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of loading (default: %(default)s)")
    options, _ = parse(parser, arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        scenes = write_scenes(scratch / "scenes", options.images, options.side)
        root = options.root or scenes
        dataset = LabelledDataset(READERS[recognise(root)], root)
        rows = list(
            split_rows(options.split_root or scenes, SplitSettings(options.size, options.size // 5), scratch)
        )
        rows += loading_rows(dataset, options.size, max(1, options.rounds))
    for row in rows:
        print(
            f"{row['what']:6} {row['way']:32} {row['count']:6} in {row['seconds']:7.2f} s  "
            f"{row['per_second']:8.1f}/s"
        )
    result = {
        "rows": rows,
        "size": options.size,
        "rounds": options.rounds,
        "machine": machine(),
        "versions": versions(),
    }
    if options.json:
        print_json(result)
    return result


if __name__ == "__main__":
    sys.exit(run_command(command))
