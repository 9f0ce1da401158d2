"""Take a trained detector away: as an ONNX file, or into MLflow's model registry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dbf_ray.cli.options import make_parser, parse, print_json, registered_line, run_command
from dbf_ray.config import with_overrides
from dbf_ray.errors import ConfigError
from dbf_ray.evaluate import config_of
from dbf_ray.export.onnx_file import write_onnx
from dbf_ray.export.register import check_register, register_checkpoint
from dbf_ray.remote import at_hand
from dbf_ray.training.checkpoint import whole_checkpoint

ABOUT = """Write a trained detector to an ONNX file, or register it in MLflow as a model that can be loaded
and served.

The ONNX file (one-stage detectors: rotated_retinanet, rotated_fcos) takes normalised, padded images and gives
the decoded boxes and the scores of all candidates. It is compared with the detector on ten images before it
takes its name. dbf_ray.export.Exported prepares images and suppresses; it needs no torch."""
EPILOG = """examples:
  dbf export --checkpoint runs/NAME/checkpoints/epoch-00012 --out model.onnx
  for larger images, one at a time:
    dbf export --checkpoint ... --out model.onnx --image-size 1024 --batch 1
  as a model of MLflow's registry, then served:
    dbf export --checkpoint runs/NAME/checkpoints/epoch-00012 --register my-detector
    mlflow models serve -m models:/my-detector/1 --env-manager local"""


def main(arguments: Sequence[str] | None = None, prog: str = "dbf export") -> int:
    """Run the command and return its exit status."""
    return run_command(partial(command, prog=prog), arguments)


def command(arguments: Sequence[str] | None = None, prog: str = "dbf export") -> dict[str, Any]:
    """Export, and say what was written and how well it fits."""
    parser = make_parser(
        prog, ABOUT, EPILOG, ("tracking",), "--checkpoint DIR [--out FILE] [--register NAME]"
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="DIR",
        help="a folder like runs/NAME/checkpoints/epoch-00012, or the URI of one in a storage (s3://...)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the ONNX file to write")
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="N",
        help="long side in pixels that images are resized to; the file takes squares of it, rounded up to a "
        "multiple of 32 (default: the training's data.image_size)",
    )
    parser.add_argument(
        "--batch", default="dynamic", metavar="N", help="images at once, or dynamic for any number (default)"
    )
    parser.add_argument(
        "--register",
        dest="tracking.registered_model_name",
        metavar="NAME",
        help="register the detector in MLflow under this name; short for --tracking.registered_model_name",
    )
    options, overrides = parse(parser, arguments)
    if options.config is not None:
        raise ConfigError(
            "a checkpoint brings its own configuration, --config cannot change it; leave it out"
        )
    name = overrides.get("tracking.registered_model_name")
    if options.out is None and name is None:
        raise ConfigError(f"--out or --register is required; {prog} --help explains both")
    checkpoint = whole_checkpoint(at_hand(options.checkpoint))
    config = with_overrides(
        config_of(checkpoint), {"tracking.registered_model_name": None, "tracking.mlflow": True, **overrides}
    )
    check_register(config)
    result: dict[str, Any] = {"checkpoint": str(checkpoint)}
    if options.out is not None:
        result |= write_onnx(checkpoint, config, options.out, options.image_size, _batch(options.batch))
        print(report(result))
    if name is not None:
        result["registered"] = register_checkpoint(checkpoint, config, name)
        print(registered_line(result["registered"]))
    if options.json:
        print_json(result)
    return result


def report(result: dict[str, Any]) -> str:
    """What a finished export says."""
    shapes = ", ".join(
        f"{name} {list(shape)}" for name, shape in {**result["inputs"], **result["outputs"]}.items()
    )
    return (
        f"{result['out']}: {result['bytes'] / 1e6:.1f} MB; {shapes}; largest difference from the detector on "
        f"ten images: {result['difference_of_scores']:.1e} of scores, {result['difference_of_boxes']:.1e} of "
        "a box's long side"
    )


def _batch(text: str) -> int | None:
    """``--batch``: None for any number."""
    if text == "dynamic":
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"--batch must be a number >= 1 or dynamic, got {text!r}") from None
