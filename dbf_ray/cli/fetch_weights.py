"""Fetch ImageNet weights of MobileNetV2."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.config import at
from dbf_ray.detectors.backbones import download

ABOUT = download.__doc__ or ""
EPILOG = f"""use them:
    dbf train --detector.backbone mobilenet_v2 --detector.weights_backbone {download.DEFAULT_FILE}"""


def main(arguments: Sequence[str] | None = None, prog: str = "dbf fetch-weights") -> int:
    """Run the command and return its exit status."""
    return run_command(partial(command, prog=prog), arguments)


def command(arguments: Sequence[str] | None = None, prog: str = "dbf fetch-weights") -> dict[str, Any]:
    """Fetch the weights and say where they are."""
    parser = make_parser(prog, ABOUT, EPILOG)
    parser.add_argument(
        "--out",
        type=Path,
        default=download.DEFAULT_FILE,
        metavar="FILE",
        help=f"where to put them (default: {download.DEFAULT_FILE})",
    )
    options, _ = parse(parser, arguments)
    with at("detector"):
        result = {"weights": str(download.fetch_weights(options.out))}
    print(f"ImageNet weights of MobileNetV2 are in {result['weights']}")
    if options.json:
        print_json(result)
    return result
