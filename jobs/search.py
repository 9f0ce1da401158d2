"""Search for the freezing schedule with the best trade-off of accuracy against compute."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbf_ray.config import load_config
from dbf_ray.reports.tables import text_table
from dbf_ray.tracking import resolve_uri
from jobs.command_line import Options, main, make_parser, parse, print_json

ABOUT = """Search freezing policies (and any other key) for the best trade-off of map50 against compute_ratio.

Every trial is a training; Optuna chooses what to try next. The answer is the Pareto front: trials that no other beats in both."""
EPILOG = """examples:
  the best period rho on your own images, as many trials at once as the machine holds:
    python -m jobs.search --config jobs/configs/hrsc_mobilenet_v2.yaml --data.root DIR --detector.weights_backbone FILE \\
        --space search_spaces/rho.py --trials 12 --study hrsc-rho
  go on with an interrupted study, or add trials to it: the same command, with a larger --trials

Trained first are the space's baselines (full and frozen). A study leaves studies/NAME/: study.db (Optuna), trials.csv, pareto.json,
pareto.html, pareto.png and trials/NUMBER/, a complete run folder each. How to write a space: see search_spaces/rho.py."""

SECTIONS = ("", "data", "detector", "freezing", "training", "evaluation", "cluster", "tracking", "search")


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Search, and print the table of trials and where everything is."""
    return execute(read_options("jobs.search", ABOUT, EPILOG, arguments))


def read_options(module: str, about: str, epilog: str, arguments: Sequence[str] | None) -> Options:
    """The options of a command that searches."""
    parser = make_parser(
        module, about, epilog, SECTIONS, "--space FILE [--study NAME] [--trials N] [--concurrent K]"
    )
    parser.add_argument(
        "--space",
        type=Path,
        required=True,
        metavar="FILE",
        help="search space, a Python file such as search_spaces/rho.py",
    )
    parser.add_argument(
        "--study",
        default=None,
        metavar="NAME",
        help="the study's name and folder (default: the space's and data set's names)",
    )
    parser.add_argument(
        "--trials",
        type=_positive,
        metavar="N",
        help="complete trials to have in the end; short for --search.trials",
    )
    parser.add_argument(
        "--concurrent", type=_positive, metavar="K", help="trials at once; short for --search.concurrent"
    )
    return parse(parser, arguments)


def execute(parsed: Options) -> dict[str, Any]:
    """Search as the options say."""
    options, overrides = parsed
    config = load_config(options.config, overrides)
    study = options.study or f"{options.space.stem}-{config.data.name}"
    from dbf_ray.search import search

    result = search(
        config,
        options.space,
        study_name=study,
        trials=options.trials,
        concurrent=options.concurrent,
        studies_dir=config.search.studies_dir,
        progress=_say,
    )
    print(
        closing(
            result,
            config.search.studies_dir / study,
            config.tracking.uri if config.tracking.mlflow else "off",
        )
    )
    if options.json:
        print_json(result)
    return result


def closing(result: dict[str, Any], folder: Path, uri: str | None) -> str:
    """The table of trials, the answer in words, where the files are, and how to open MLflow's comparison."""
    lines = ["", text_table(result), ""]
    if result.get("answer") and result["answer"].get("text"):
        lines += [result["answer"]["text"], ""]
    lines += [
        f"files: {folder / 'pareto.html'}  {folder / 'pareto.png'}  {folder / 'pareto.json'}  "
        f"{folder / 'trials.csv'}"
    ]
    if uri != "off":
        lines += [
            f"compare in MLflow: {sys.executable} -m mlflow ui --backend-store-uri {_short(resolve_uri(uri))}"
        ]
    return "\n".join(lines)


def _short(uri: str) -> str:
    here = f"sqlite:///{Path.cwd()}/"
    return "sqlite:///" + uri.removeprefix(here) if uri.startswith(here) else uri


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(command))
