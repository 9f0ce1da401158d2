"""Evaluate a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbf_ray.config import Config, with_overrides
from dbf_ray.errors import WeightsError
from dbf_ray.evaluate import evaluate_checkpoint
from dbf_ray.training.checkpoint import load_checkpoint
from jobs.command_line import main, make_parser, print_json

EPILOG = """example:
    python -m jobs.evaluate --checkpoint runs/NAME/checkpoints/epoch-00012 --data.root DIR"""


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Evaluate and print the metrics."""
    parser = make_parser("jobs.evaluate", "Evaluate a checkpoint on the validation images of a data set.", EPILOG)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="a folder like runs/NAME/checkpoints/epoch-00012")
    parser.add_argument("--data.root", dest="root", type=Path, default=None, metavar="DIR", help="another data folder than in training")
    parser.add_argument("--split", default="val", choices=["val", "train"], help="which images (default: val)")
    options = parser.parse_args(arguments)
    _, record = load_checkpoint(options.checkpoint)
    try:
        config = Config.model_validate(record["config"])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"checkpoint {options.checkpoint} holds no configuration that this version understands: {error}") from error
    if options.root is not None:
        config = with_overrides(config, {"data.root": str(options.root)})
    metrics = evaluate_checkpoint(options.checkpoint, config, options.split)
    print("\n".join(f"{name:<16} {'none' if value != value else f'{value:.4f}'}" for name, value in metrics.items()))
    if options.json:
        print_json(metrics)
    return metrics


if __name__ == "__main__":
    sys.exit(main(command))
