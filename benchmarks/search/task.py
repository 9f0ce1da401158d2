"""The small real task that curves are recorded on, and the settings that are trained on it."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from dbf_ray.config import Config, load_config, to_dict, with_overrides
from dbf_ray.errors import DataError
from dbf_ray.search.checked import CheckedBegin
from dbf_ray.search.draws import Draws
from dbf_ray.search.pool import Pool
from dbf_ray.search.settings import Begin, Setting, Settings
from dbf_ray.search.spaces import load_space

PLANNED_SCALE = 256 / 640  # of images as they are stored, that hrsc_planned.yaml's anchors are for
SPACES = ("rho", "policies")
IMAGES, VAL_IMAGES, SIZE = 240, 100, 128  # see docs/results/search.md


def ships(root: Path, folder: Path, *, images: int, val_images: int, size: int) -> Config:
    """HRSC2016's ships, or windows of these images, at ``size`` pixels: a fixed part of the images that have
    an object which counts, spread over all, copied to ``folder`` unless it is there.

    Raises:
        DataError: ``root`` has fewer such images.
    """
    for split, count in (("train", images), ("val", val_images)):
        if not (folder / split).exists():
            _spread(root / split, folder / split, count)
    config = load_config("hrsc_planned")
    stored = max(Image.open(next((folder / "train" / "images").iterdir())).size)
    factor = size / stored / PLANNED_SCALE
    scales = [scale * factor for scale in to_dict(config)["detector"]["anchor_scales"]]
    return with_overrides(
        config,
        {
            "data.root": str(folder),
            "data.image_size": size,
            "data.flips": [],  # one view of each image, so that a feature cache always hits
            "data.pad_to": "square",
            "detector.anchor_scales": scales,
            "training.lr": 6e-4,
            "training.warmup_steps": max(1, images * 12 // 4 // 20),
        },
    )


def scenes(*, images: int, val_images: int, size: int) -> Config:
    """The demo's generated scenes."""
    numbers = {"data.train_images": images, "data.val_images": val_images, "data.image_size": size}
    return with_overrides(load_config("demo"), {**numbers, "data.selection_fraction": 0.0})


def recorded(config: Config) -> Config:
    """How each setting is trained: alike in every process, each epoch evaluated, frozen ones cached."""
    return with_overrides(
        config,
        {
            "evaluation.every": 1,
            "freezing.cache": "ram",
            "tracking.mlflow": False,
            "training.precision": "bf16",  # half the time of float32 on these CPUs
            "training.threads": 1,
        },
    )


def settings_of(config: Config, count: int, begin: Begin | None = None) -> list[Setting]:
    """All of ``rho`` with its baselines, then baselines and random settings of ``policies``: ``count`` of
    them or all there are. The same for each training seed.
    """
    made = Settings(config, begin or CheckedBegin())
    found: dict[str, Setting] = {}
    for name in SPACES:
        space = load_space(name)
        pool = Pool(Draws(space, "recorded", []), made, seed=0).settings
        drawn = pool if name == "rho" else pool[:count]
        for setting in (*map(made.make, space.baselines), *drawn):
            found.setdefault(setting.key, setting)
    return list(found.values())


def _spread(source: Path, target: Path, count: int) -> None:
    labels = [file for file in sorted((source / "labelTxt").glob("*.txt")) if _counts(file.read_text())]
    if len(labels) < count:
        raise DataError(
            f"{source} must have {count} images with objects, it has {len(labels)}; give fewer by --images "
            "and --val-images, or another --data.root"
        )
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for kind in ("images", "labelTxt"):
        (partial / kind).mkdir(parents=True)
    for place in range(count):
        label = labels[place * len(labels) // count]
        image = next((source / "images").glob(f"{label.stem}.*"))
        shutil.copy(label, partial / "labelTxt")
        shutil.copy(image, partial / "images")
    partial.rename(target)


def _counts(text: str) -> bool:
    """Whether one of a file's objects is not difficult."""
    return any(line.split()[-1:] == ["0"] for line in text.splitlines())
