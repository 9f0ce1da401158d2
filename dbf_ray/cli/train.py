"""Train one detector with one freezing policy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dbf_ray.api import train_detector, wants_ray
from dbf_ray.build import prepare
from dbf_ray.cli.options import make_parser, parse, print_json, registered_line, run_command
from dbf_ray.cli.timeline import forecast_of, time_lines, timed, timeline
from dbf_ray.config import Config, load_config, with_overrides
from dbf_ray.detectors.backbones.download import DEFAULT_FILE
from dbf_ray.plan.stage_times import FORECAST_LIMIT, time_stages
from dbf_ray.progress import print_line
from dbf_ray.run import run_directory

ABOUT = """Train an oriented detector, its backbone frozen in the epochs that a freezing policy says.

Frozen epochs cost less; compute_ratio is the run's training FLOPs over those of policy full."""
EPILOG = """examples:
  pretrained weights of MobileNetV2, once:
    dbf fetch-weights
  train on generated scenes, the backbone unfrozen in every 4th epoch:
    dbf train --config demo --freezing.policy step --freezing.rho 4
  see the timeline and what it costs, without training:
    dbf train --config demo --freezing.policy step --freezing.rho 4 --dry-run
  train on your own images in DOTA's format (DIR/train and DIR/val, each with images/ and labelTxt/):
    dbf train --config patches --data.root DIR --detector.weights_backbone weights/mobilenet_v2.pth
  begin anew with the weights of another run's checkpoint, under another name, at a lower learning rate:
    dbf train --config demo --name lower --resume-from runs/NAME/checkpoints/epoch-00006 --training.lr 1e-4
  two workers (DDP under Ray Train):
    dbf train --config demo --cluster.workers 2

A run leaves runs/NAME/: config.yaml, epochs.jsonl, summary.json, checkpoints/. The same command resumes
an interrupted run."""
SECTIONS = ("", "data", "detector", "freezing", "training", "evaluation", "cluster", "tracking")


def main(arguments: Sequence[str] | None = None, prog: str = "dbf train") -> int:
    """Run the command and return its exit status."""
    return run_command(partial(command, prog=prog), arguments)


def command(arguments: Sequence[str] | None = None, prog: str = "dbf train") -> dict[str, Any]:
    """Train, or with ``--dry-run`` only check and say what would be trained."""
    parser = make_parser(
        prog, ABOUT, EPILOG, SECTIONS, "[--register NAME] [--resume-from CHECKPOINT] [--dry-run]"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print the timeline, its cost, and time and memory by real steps (half a "
        "minute), and train nothing",
    )
    parser.add_argument(
        "--resume-from",
        dest="detector.weights_checkpoint",
        metavar="CHECKPOINT",
        help="begin a new run with the weights of a checkpoint of another one, with any other settings but "
        "the detector's: runs/NAME/checkpoints/epoch-00012; short for --detector.weights_checkpoint",
    )
    parser.add_argument(
        "--register",
        dest="tracking.registered_model_name",
        metavar="NAME",
        help="register the trained detector in MLflow under this name; short for "
        "--tracking.registered_model_name",
    )
    options, overrides = parse(parser, arguments)
    config = load_config(options.config, overrides)
    if options.dry_run:
        wants_ray(config)
        config = _with_weights_that_are_there(config)
        spec = prepare(config)
        print(timeline(spec), flush=True)
        found = timed(spec, time_stages(config, FORECAST_LIMIT), config.cluster.workers)
        print("\n".join(time_lines(spec, found)))
        result = forecast_of(spec) | found
    else:
        result = train_detector(config)
        print(report(result, config))
        if result.get("registered"):
            print(registered_line(result["registered"]))
    if options.json:
        print_json(result)
    return result


def _with_weights_that_are_there(config: Config) -> Config:
    """What a dry run says does not depend on weights: those that :mod:`.fetch_weights` fetches may be missing
    yet.
    """
    weights = config.detector.weights_backbone
    if weights is None or Path(weights) != DEFAULT_FILE or DEFAULT_FILE.exists():
        return config
    print_line(f"{DEFAULT_FILE} is not there yet: dbf fetch-weights before you train")
    return with_overrides(config, {"detector.weights_backbone": None})


def report(summary: dict[str, Any], config: Config) -> str:
    """What a finished run says."""
    map50 = summary["map50"]
    score = "none (no object counts)" if map50 is None or map50 != map50 else f"{map50:.3f}"
    return (
        f"map50 {score}, compute_ratio "
        f"{summary['compute_ratio']:.3f} (analytic {summary['analytic_ratio']:.3f}), "
        f"{summary['wall_seconds']:.0f} s; record in {run_directory(config)}"
    )
