"""A configuration that fits the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbf_ray.api import plan_settings
from dbf_ray.cli.coverage_lines import coverage_lines
from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.errors import ConfigError
from dbf_ray.files import write_text
from dbf_ray.progress import print_line

ABOUT = """Choose settings for own images: image size, anchors, thresholds, batch, learning rate, epochs.

Labels and the headers of all images are read; nothing is trained. Each value comes from a rule, with the
figure that it was chosen by as a comment beside it. docs/plan.md has the rules. What --config or an option
sets stays, and the plan says what it would have chosen."""
EPILOG = """examples:
  from labelled images to a training:
    dbf plan DIR --out my.yaml
    dbf train --config my.yaml
  for another detector, on a wide backbone:
    dbf plan DIR --out my.yaml --detector.name oriented_rcnn --detector.backbone resnet50
  for generated scenes:
    dbf plan --data.name synthetic --out scenes.yaml
  large images of small objects, cut first:
    dbf plan DIR --patches DIR-patches --out my.yaml

Beside FILE.yaml there is FILE.json: the fingerprint of the data, all choices, coverage by class. Exit status:
0 planned; 1 images are to be cut first (the command is printed, nothing is written); 2 bad input."""
SECTIONS = ("", "data", "detector", "freezing", "training", "evaluation", "cluster", "tracking")


def main(arguments: Sequence[str] | None = None, prog: str = "dbf plan") -> int:
    """Run the command and return its exit status."""
    results: list[dict[str, Any]] = []
    status = run_command(lambda given: results.append(command(given, prog)), arguments)
    return status or int(any("cut" in result for result in results))


def command(arguments: Sequence[str] | None = None, prog: str = "dbf plan") -> dict[str, Any]:
    """Plan, print what was chosen and why, and write the files."""
    parser = make_parser(prog, ABOUT, EPILOG, SECTIONS, "[DIR] --out FILE.yaml [--patches OUT]")
    parser.add_argument("root", nargs="?", type=Path, metavar="DIR", help="folder of labelled images")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.yaml", required=True, help="the configuration to write"
    )
    parser.add_argument(
        "--patches", type=Path, metavar="OUT", help="cut the images into this folder where due"
    )
    options, overrides = parse(parser, arguments)
    if options.out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"--out must be a YAML file, got {options.out}; give {options.out}.yaml")
    if options.root is None and "data.name" not in overrides and "data.root" not in overrides:
        raise ConfigError(f"a folder of labelled images is needed, got none; {prog} DIR --out {options.out}")
    result = plan_settings(
        options.root, options.config, patches=options.patches, progress=print_line, **overrides
    )
    if "cut" in result:
        print(result["cut"])
    else:
        write_text(options.out, result.pop("yaml"))
        write_text(options.out.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
        print("\n".join(lines(result)))
        print(f"written: {options.out}; next: dbf train --config {options.out}")
    if options.json:
        print_json(result)
    return result


def lines(result: dict[str, Any]) -> list[str]:
    """What was chosen, a line each; then coverage, and what a person should know."""
    rows = [
        f"{row['key']:<28} {row['value'] if row['stays'] is None else row['stays']!s:<34} {_why(row)}"
        for row in result["choices"]
    ]
    before, after = result["coverage"]["before"], result["coverage"]["after"]
    if after is not None:
        rows += ["", *coverage_lines(before, after), ""]
    return [*rows, *(f"note: {note}" for note in result["notes"])]


def _why(row: dict[str, Any]) -> str:
    if row["stays"] is None:
        return str(row["why"])
    return f"as given; the rule would choose {row['value']} ({row['why']})"
