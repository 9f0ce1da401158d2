"""Evaluate a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbf_ray.evaluate import config_of, evaluate_checkpoint
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
    config = config_of(options.checkpoint, options.root)
    metrics = evaluate_checkpoint(options.checkpoint, config, options.split)
    print("\n".join(f"{name:<16} {'none' if value != value else f'{value:.4f}'}" for name, value in metrics.items()))
    if options.json:
        print_json(metrics)
    return metrics


if __name__ == "__main__":
    sys.exit(main(command))
