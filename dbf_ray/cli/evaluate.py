"""Evaluate a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dbf_ray.api import evaluate_checkpoint
from dbf_ray.cli.options import make_parser, metric_lines, parse, print_json, run_command
from dbf_ray.config import load_config
from dbf_ray.errors import ConfigError
from dbf_ray.evaluate import evaluate_mmrotate
from dbf_ray.run.results import evaluated

ABOUT = """Evaluate a checkpoint on the validation images of the data set it was trained on, or of another
with the same classes.

Prints fractions in [0, 1]: map50 (VOC2012 area AP at IoU 0.5), map50_voc07, map75, map50_95 and
ap50/CLASS."""
EPILOG = """examples:
  on the data it was trained on:
    dbf evaluate --checkpoint runs/NAME/checkpoints/epoch-00012
  on other images in DOTA's format (DIR/val, or DIR itself, with images/ and labelTxt/):
    dbf evaluate --checkpoint runs/NAME/checkpoints/epoch-00012 --data.root DIR
  a model that MMRotate trained; the options say which detector it is and which images:
    dbf evaluate --mmrotate FILE.pth --detector.name oriented_rcnn --detector.backbone resnet50 \\
        --data.name dota --data.root DIR --data.image_size 1024"""
SECTIONS = ("data", "detector", "training", "evaluation", "tracking")
USED = (
    "data.",
    "detector.",
    "evaluation.",
    "tracking.",
    "training.precision",
    "training.device",
    "training.channels_last",
    "training.threads",
)


def main(arguments: Sequence[str] | None = None, prog: str = "dbf evaluate") -> int:
    """Run the command and return its exit status."""
    return run_command(partial(command, prog=prog), arguments)


def command(arguments: Sequence[str] | None = None, prog: str = "dbf evaluate") -> dict[str, Any]:
    """Evaluate and print the metrics."""
    usage = "--checkpoint DIR | --mmrotate FILE [--split val|train]"
    parser = make_parser(prog, ABOUT, EPILOG, SECTIONS, usage)
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="a folder like runs/NAME/checkpoints/epoch-00012, or the URI of one in a storage (s3://...)",
    )
    parser.add_argument(
        "--mmrotate", type=Path, metavar="FILE", help="a checkpoint of MMRotate 0.3 or 1.x instead"
    )
    parser.add_argument(
        "--split", default="val", choices=["val", "train"], help="which images (default: val)"
    )
    options, overrides = parse(parser, arguments)
    if (options.checkpoint is None) == (options.mmrotate is None):
        raise ConfigError(f"one of --checkpoint and --mmrotate is required; {prog} --help explains both")
    if options.checkpoint is not None:
        tracking = {key: value for key, value in overrides.items() if key.startswith("tracking.")}
        others = [f"--{key}" for key in overrides if key != "data.root" and key not in tracking]
        others += ["--config"] if options.config else []
        if others:
            raise ConfigError(
                f"a checkpoint brings its own configuration, {others[0]} cannot change it; only --data.root "
                "and --tracking.KEY can be given"
            )
        root = overrides.get("data.root")
        metrics = evaluate_checkpoint(options.checkpoint, root, options.split, **tracking)
    else:
        unused = [key for key in overrides if not key.startswith(USED) or key.startswith("detector.weights_")]
        if unused:
            raise ConfigError(f"--{unused[0]} has no effect on a MMRotate checkpoint; leave it out")
        config, file, split = load_config(options.config, overrides), options.mmrotate, options.split
        metrics = evaluated(config, file, split, partial(evaluate_mmrotate, file, config, split))
    print(metric_lines(metrics, 16))
    if options.json:
        print_json(metrics)
    return metrics
