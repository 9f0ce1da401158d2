"""What a detector can match of the data that ``dbf prepare-data check`` looks at, where it is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dbf_ray.cli.coverage_lines import coverage_lines
from dbf_ray.cli.options import add_configuration, class_option
from dbf_ray.config import Config, load_config
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.values import plain_text

if TYPE_CHECKING:
    from PIL import Image

    from dbf_ray.plan.matched import Marked, Matched

SHOWN = (
    *("data.train_split", "data.image_size", "data.flips", "data.augment.scales"),
    *("detector.name", "detector.backbone"),
)
ELSEWHERE = {"data.root": "ROOT", "data.name": "--format", "data.classes": "--classes"}
EPILOG = """With --config, --data.KEY or --detector.KEY the check shows, too, how many of the objects to
train on that detector can match, with its own defaults and with these settings (coverage, see
docs/plan.md), and in the report which ones nobody matches:
  dbf prepare-data check DIR --config my.yaml --report check
  dbf prepare-data check DIR --detector.name rotated_fcos --data.image_size 512"""
CELL = 480  # pixels: longer side of a drawn image
MOST_IMAGES = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration's options, as far as they say what a detector matches."""
    add_configuration(parser, ("data", "detector"), SHOWN)


def settings(options: argparse.Namespace) -> Config | None:
    """The configuration that is asked about; None where none is.

    Raises:
        ConfigError: it cannot be used, or says what an option of the check says.
    """
    if options.config is None and not options.overrides:
        return None
    for key, name in ELSEWHERE.items():
        if key in options.overrides:
            raise ConfigError(f"unknown option --{key}; {name} says it here")
    from dbf_ray.plan.matched import check_settings

    overrides = dict(options.overrides)
    if options.classes is not None:
        overrides["data.classes"] = class_option(options.classes)
    config = load_config(options.config, overrides)
    check_settings(config)
    return config


def look(config: Config, root: Path, name: str, notes: list[str]) -> Matched | None:
    """What the detector matches; None, with a note why, where that cannot be said."""
    from dbf_ray.plan.kinds import has_oriented_anchors
    from dbf_ray.plan.matched import is_known, match
    from dbf_ray.plan.overlaps import LEAST

    if not is_known(config):
        notes.append(
            f"coverage is left out: what {config.detector.name} matches is not known, only what detectors "
            "with oriented anchors, a proposal network or FCOS's points do"
        )
        return None
    least = config.detector.parameters.get("positive_iou", LEAST)
    if has_oriented_anchors(config.detector.name) and least < LEAST:
        notes.append(
            f"overlaps below {LEAST} are not told apart, coverage at {least} may be more than it says"
        )
    try:
        return match(config, root, name)
    except DataError as error:
        notes.append(f"coverage is left out: {' '.join(str(error).split())}")
        return None


def lines(matched: Matched) -> list[str]:
    """Coverage as text."""
    found = matched.as_dict()
    total, some = found["objects"], found["looked_at"]
    drawn = f", {some} looked at, as many of each class" if some < total else ""
    return [
        f"what {found['detector']} can match of {total} object{'s' * (total != 1)} "
        f"({found['split']}{drawn}) at {found['image_size']} px, views: {found['views']}",
        *coverage_lines(found["before"], found["after"]),
    ]


def section(matched: Matched) -> str:
    """The part of the report's page."""
    from dbf_ray.plan.matched import shapes, worst_images
    from dbf_ray.reports.coverage_page import Scene, coverage_section

    found = matched.as_dict()
    pictures = {"as set": shapes(matched)}
    if found["options"]:
        pictures = {"the detector's defaults": shapes(matched, usual=True)} | pictures
    scenes = []
    for image in worst_images(matched, MOST_IMAGES):
        never, always = ((image.share == part).sum().item() for part in (0, 1))
        some = len(image.share) - int(never) - int(always)
        scenes.append(Scene(_drawn(image), plain_text(image.title), int(never), some, len(image.share)))
    return coverage_section(found, pictures, scenes)


def _drawn(image: Marked) -> Image.Image:
    """Objects matched in no view on top."""
    from dbf_ray.data.images.rasters import open_raster
    from dbf_ray.reports.coverage_page import ALWAYS, NEVER, SOMETIMES
    from dbf_ray.reports.scenes import draw_scene, outlines

    with open_raster(image.file) as raster:
        pixels = raster.read(*image.window).permute(1, 2, 0).numpy()
    order = image.share.argsort(descending=True)
    share = image.share[order].tolist()
    labels = [NEVER if part == 0 else ALWAYS if part == 1 else SOMETIMES for part in share]
    return draw_scene(
        pixels,
        outlines(image.corners[order].numpy(), labels),
        scale=CELL / max(pixels.shape[:2]),
        captions=False,
    )
