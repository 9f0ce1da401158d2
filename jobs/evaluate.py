"""Evaluate a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbf_ray.config import Config, make_config, with_overrides
from dbf_ray.errors import ConfigError, WeightsError
from dbf_ray.evaluate import evaluate_checkpoint
from dbf_ray.training.checkpoint import load_checkpoint
from jobs.command_line import main, make_parser, parse, print_json

ABOUT = """Evaluate a checkpoint on the validation images of the data set it was trained on, or of another with the same classes.

Prints fractions in [0, 1]: map50 (VOC2012 area AP at IoU 0.5), map50_voc07, map75, map50_95 and ap50/CLASS."""
EPILOG = """examples:
  on the data it was trained on:
    python -m jobs.evaluate --checkpoint runs/NAME/checkpoints/epoch-00012
  on other images in DOTA's format (DIR/val, or DIR itself, with images/ and labelTxt/):
    python -m jobs.evaluate --checkpoint runs/NAME/checkpoints/epoch-00012 --data.root DIR"""


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Evaluate and print the metrics."""
    parser = make_parser("jobs.evaluate", ABOUT, EPILOG)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="a folder like runs/NAME/checkpoints/epoch-00012")
    parser.add_argument("--data.root", dest="root", type=Path, default=None, metavar="DIR", help="another data folder than in training")
    parser.add_argument("--split", default="val", choices=["val", "train"], help="which images (default: val)")
    options, _ = parse(parser, arguments)
    config = configuration(options.checkpoint, options.root)
    metrics = evaluate_checkpoint(options.checkpoint, config, options.split)
    print("\n".join(f"{name:<16} {'none' if value != value else f'{value:.4f}'}" for name, value in metrics.items()))
    if options.json:
        print_json(metrics)
    return metrics


def configuration(checkpoint: Path, root: Path | None) -> Config:
    """The configuration that a checkpoint was trained with, for any device, and with another data folder if ``root`` is given."""
    _, record = load_checkpoint(checkpoint)
    try:
        config = make_config(record["config"], f"checkpoint {checkpoint}")
    except (KeyError, TypeError, ConfigError) as error:
        raise WeightsError(f"checkpoint {checkpoint} must hold a configuration that this version understands: {error}") from error
    changes: dict[str, Any] = {"training.device": "auto"}
    if root is not None:
        changes["data.root"] = str(root)
        if config.data.name == "synthetic":  # trained on generated scenes: the folder is in the format that data.root means
            changes["data.name"] = "dota"
    return with_overrides(config, changes)


if __name__ == "__main__":
    sys.exit(main(command))
