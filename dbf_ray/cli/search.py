"""Search for the freezing schedule with the best trade-off of accuracy against compute."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dbf_ray.api import search_schedules, study_name
from dbf_ray.cli.in_mlflow import in_mlflow
from dbf_ray.cli.options import Options, make_parser, parse, print_json, registered_line, run_command
from dbf_ray.config import Config, load_config
from dbf_ray.reports.tables import text_table
from dbf_ray.search.samplers import SAMPLERS
from dbf_ray.search.spaces import question
from dbf_ray.shipped import find_shipped, shipped_files
from dbf_ray.tracking import resolve_uri

ABOUT = """Search freezing policies (and any other key) for the best trade-off of an accuracy
(search.accuracy: map50) against a cost (search.cost: compute_ratio).

Every trial is a training; Optuna chooses what to try next. The answer is the Pareto front: trials that no
other beats in both."""
EPILOG = """examples:
  the best period rho on your own images, as many trials at once as the machine holds:
    dbf search --config patches --data.root DIR --detector.weights_backbone FILE \\
        --data.selection_fraction 0.2 --space rho --trials 12 --study my-rho
  resume an interrupted study, or add trials to it: the same command, with a larger --trials

Trained first are the space's baselines (full and frozen), and full for fewer epochs (--search.controls),
which a schedule has to beat. What several settings have in common from their first epoch on is trained
once. A study leaves studies/NAME/: pareto.html (a page with everything), pareto.json, pareto.png,
trials.csv, study.db (Optuna) and trials/NUMBER/, a complete run folder each.
How to write a space: see search_spaces/rho.py."""
SHORT = {
    "sampler": ("NAME", f"what is tried next: {', '.join(SAMPLERS)}"),
    "epochs": ("N", "epochs to train at most, by all trials of the study; none begins that would exceed it"),
    "hours": ("H", "hours to search at most, all calls together"),
    "max-compute-ratio": ("C", "leave out settings that cost more"),
    "known": ("DIR", "use results and states of an earlier study, studies/NAME, of the same configuration"),
}
SECTIONS = ("", "data", "detector", "freezing", "training", "evaluation", "cluster", "tracking", "search")


def main(arguments: Sequence[str] | None = None, prog: str = "dbf search") -> int:
    """Run the command and return its exit status."""
    return run_command(partial(command, prog=prog), arguments)


def command(arguments: Sequence[str] | None = None, prog: str = "dbf search") -> dict[str, Any]:
    """Search, and print the table of trials and where everything is."""
    return execute(read_options(prog, ABOUT, EPILOG, arguments))


def read_options(prog: str, about: str, epilog: str, arguments: Sequence[str] | None) -> Options:
    """The options of a command that searches."""
    parser = make_parser(
        prog,
        about,
        epilog,
        SECTIONS,
        "--space FILE [--study NAME] [--trials N] [--concurrent K] [--seeds-on-front N] [--dry-run]",
    )
    parser.add_argument(
        "--space",
        required=True,
        metavar="FILE",
        help="search space: a Python file such as search_spaces/rho.py, or the name of a shipped one: "
        + " ".join(f"{name}: {question(file)}" for name, file in shipped_files("search space").items()),
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
    for name, (metavar, words) in SHORT.items():
        key = f"search.{name.replace('-', '_')}"
        parser.add_argument(f"--{name}", dest=key, metavar=metavar, help=f"{words}; short for --{key}")
    parser.add_argument(
        "--seeds-on-front",
        type=_positive,
        metavar="N",
        help="in the end train front, baselines and controls with N seeds each; short for "
        "--search.seeds_on_front",
    )
    parser.add_argument(
        "--register",
        dest="tracking.registered_model_name",
        metavar="NAME",
        help="register the recommended setting's detector in MLflow under this name; short for "
        "--tracking.registered_model_name",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check configuration, data and space, say how many epochs, how much disk and time it takes, and "
        "train nothing",
    )
    return parse(parser, arguments)


def execute(parsed: Options) -> dict[str, Any]:
    """Search as the options say."""
    options, overrides = parsed
    if options.seeds_on_front is not None:
        overrides = {**overrides, "search.seeds_on_front": options.seeds_on_front}
    config = load_config(options.config, overrides)
    if options.dry_run:
        return _forecast(config, options)
    result = search_schedules(
        config, options.space, study=options.study, trials=options.trials, concurrent=options.concurrent
    )
    folder = config.search.studies_dir / result["study"]
    print(closing(result, folder, config.tracking.uri if config.tracking.mlflow else "off"))
    if result.get("registered"):
        print(registered_line(result["registered"]))
    if options.json:
        print_json(result)
    return result


def _forecast(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """What the search would do."""
    from dbf_ray.search import forecast_search, forecast_text

    space = find_shipped("search space", options.space)
    study = options.study or study_name(space, config)
    result = forecast_search(config, space, study_name=study, trials=options.trials)
    print(forecast_text(study, result))
    if options.json:
        print_json(result)
    return result


def closing(result: dict[str, Any], folder: Path, uri: str | None) -> str:
    """The table of trials, the answer in words, where the files are, and how to open MLflow's comparison."""
    lines = ["", text_table(result), ""]
    if result.get("answer") and result["answer"].get("text"):
        lines += [result["answer"]["text"], ""]
    if command := (result.get("answer") or {}).get("command"):
        lines += [f"train it: {command}"]
    lines += [
        f"page, to be opened in a browser: {folder / 'pareto.html'}",
        f"files: {folder / 'pareto.png'}  {folder / 'pareto.json'}  {folder / 'trials.csv'}",
    ]
    if uri != "off":
        lines += in_mlflow(folder.name, resolve_uri(uri))
    return "\n".join(lines)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return value
