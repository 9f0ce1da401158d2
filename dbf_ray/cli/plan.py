"""A configuration that fits the data."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dbf_ray.api import as_config, plan_settings
from dbf_ray.cli.coverage_lines import coverage_lines
from dbf_ray.cli.options import as_called, make_parser, parse, print_json, run_command
from dbf_ray.errors import ConfigError
from dbf_ray.files import write_json, write_text
from dbf_ray.plan.fingerprint import TOO_SHORT
from dbf_ray.plan.given import given_keys
from dbf_ray.progress import print_line

ABOUT = """Choose settings for own images: image size, anchors, thresholds, batch, learning rate, epochs.

Labels and the headers of all images are read; nothing is trained (--memory-gb and --train-hours try some
steps). Each value comes from a rule, with the figure that it was chosen by as a comment beside it;
docs/plan.md has the rules. What --config or an option sets stays, and the plan says what it would have
chosen."""
EPILOG = """examples:
  from labelled images to a training:
    dbf plan DIR --out my.yaml
    dbf train --config my.yaml
  for another detector, on a wide backbone:
    dbf plan DIR --out my.yaml --detector.name oriented_rcnn --detector.backbone resnet50
  for generated scenes:
    dbf plan --data.name synthetic --out scenes.yaml
  for a device of 8 GB, and a training of two hours:
    dbf plan DIR --out my.yaml --memory-gb 8 --train-hours 2
  large images of small objects, cut first:
    dbf plan DIR --patches DIR-patches --out my.yaml

Beside FILE.yaml there is plan.json: the fingerprint of the data, all choices, coverage by class. Exit status:
0 planned; 1 images are to be cut first (the command is printed, nothing is written); 2 bad input."""
FILE = "plan.json"
MADE_BY = "dbf plan"
MOST_NAMED = 20  # objects that are hardly seen
USAGE = "[DIR] --out FILE.yaml [--patches OUT] [--memory-gb GB] [--train-hours HOURS]"
SECTIONS = ("", "data", "detector", "freezing", "training", "evaluation", "cluster", "tracking")


def main(arguments: Sequence[str] | None = None, prog: str = "dbf plan") -> int:
    """Run the command and return its exit status."""
    results: list[dict[str, Any]] = []
    status = run_command(lambda given: results.append(command(given, prog)), arguments)
    return status or int(any("cut" in result for result in results))


def command(arguments: Sequence[str] | None = None, prog: str = "dbf plan") -> dict[str, Any]:
    """Plan, print what was chosen and why, and write the files."""
    parser = make_parser(prog, ABOUT, EPILOG, SECTIONS, USAGE)
    parser.add_argument("root", nargs="?", type=Path, metavar="DIR", help="folder of labelled images")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.yaml", required=True, help="the configuration to write"
    )
    parser.add_argument(
        "--patches", type=Path, metavar="OUT", help="cut the images into this folder where due"
    )
    parser.add_argument(
        "--memory-gb",
        type=float,
        metavar="GB",
        help="memory for the tensors of a step on each device, by which the batch is divided into "
        "micro-batches; some steps are measured, for a minute at most",
    )
    parser.add_argument(
        "--train-hours",
        type=float,
        metavar="HOURS",
        help="time for one training with its evaluations, the backbone trained all along, by which epochs "
        "are chosen; measured as well",
    )
    options, overrides = parse(parser, arguments)
    check_out(options.out)
    named = given_keys(as_config(options.config, **overrides)) & {"data.name", "data.root"}
    if options.root is None and not named:
        raise ConfigError(f"a folder of labelled images is needed, got none; {prog} DIR --out {options.out}")
    result = plan_settings(
        options.root,
        options.config,
        patches=options.patches,
        memory_gb=options.memory_gb,
        train_hours=options.train_hours,
        progress=print_line,
        **overrides,
    )
    if "cut" in result:
        result["cut"] = as_called(prog, completed(result["cut"], options, overrides))
        print(result["cut"])
    else:
        write(options.out, result.pop("yaml"), result)
        print("\n".join(lines(result)))
        step = as_called(prog, f"dbf train --config {shlex.quote(str(options.out))}")
        print(f"written: {options.out} and {FILE} beside it; next: {step}")
    if options.json:
        print_json(result)
    return result


def check_out(out: Path) -> None:
    """Refuse to write over what this command has not written, or a person has changed.

    Raises:
        ConfigError: it is so, or there can be no such file.
    """
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"--out must be a YAML file, got {out}; give {out}.yaml")
    if out.is_dir() or not nearest(out).is_dir():
        raise ConfigError(f"--out must be a file that can be made, got {out}; give another one")
    if not os.access(nearest(out), os.W_OK):
        raise ConfigError(f"--out must be in a folder that can be written to, got {out}; give another one")
    check_beside(out.parent / FILE)
    if out.exists():
        first, _, rest = out.read_text(errors="replace").partition("\n")
        if first != _head(rest):
            raise ConfigError(
                f"--out is there and was not made by {MADE_BY} alone, got {out}; give another or remove it"
            )


def check_beside(file: Path) -> None:
    """Refuse to write over a file of another kind.

    Raises:
        ConfigError: it is one.
    """
    if not file.exists():
        return
    try:
        found = json.loads(file.read_text(errors="replace"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not {"configuration", "fingerprint"} <= set(found):
        raise ConfigError(
            f"{FILE} beside --out is there and was not made by {MADE_BY}, got {file}; give --out in another "
            "folder or remove it"
        )


def completed(text: str, options: argparse.Namespace, overrides: Mapping[str, str]) -> str:
    """The commands that are to follow, with what was said for this one."""
    said = {
        "--config": options.config,
        "--memory-gb": options.memory_gb,
        "--train-hours": options.train_hours,
    }
    said |= {f"--{key}": value for key, value in overrides.items() if key not in ("data.name", "data.root")}
    words = [str(word) for pair in said.items() if pair[1] is not None for word in pair]
    return text.replace(" --out FILE.yaml", f" {shlex.join([*words, '--out', str(options.out)])}")


def nearest(path: Path) -> Path:
    """The nearest of the folders above that exists."""
    return next(folder for folder in path.absolute().parents if folder.exists())


def write(out: Path, text: str, result: dict[str, Any]) -> None:
    """Write the configuration, and beside it what the plan was made from."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.parent / FILE, {"configuration": out.name, **result})
    write_text(out, f"{_head(text)}\n{text}")


def _head(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"# Made by {MADE_BY} ({digest}): settings that fit the data; docs/plan.md has the rules."


def lines(result: dict[str, Any]) -> list[str]:
    """What was chosen, a line each; then coverage, and what a person should know."""
    rows = [
        f"{row['key']:<26} {_brief(row['value'] if row['stays'] is None else row['stays']):<36} {_why(row)}"
        for row in result["choices"]
    ]
    before, after = result["coverage"]["before"], result["coverage"]["after"]
    if after is not None:
        rows += ["", *coverage_lines(before, after), ""]
    rows += [f"note: {note}" for note in result["notes"]]
    return [*rows, *_short(result["short_objects"], result["fingerprint"]["image_size"])]


def _short(found: list[dict[str, Any]], image_size: int) -> list[str]:
    """Objects that are hardly seen: the first of them by name."""
    if not found:
        return []
    rows = [
        f"  {one['class']}, {one['short_side']:g} px"
        + ("" if one["file"] is None else f": {one['file']}")
        + ("" if one["line"] is None else f", line {one['line']}")
        for one in found[:MOST_NAMED]
    ]
    more = f"; {FILE} has all" if len(found) > MOST_NAMED else ""
    head = f"note: {len(found)} objects will have a short side below {TOO_SHORT:g} px at {image_size}{more}"
    return [head, *rows]


def _brief(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return textwrap.shorten(text, 36, placeholder=" ...")


def _why(row: dict[str, Any]) -> str:
    if row["stays"] is None:
        return str(row["why"])
    if row["stays"] == row["value"]:
        return "as given, and as the rule would choose"
    return f"as given; the rule would choose {row['value']}" + (f" ({row['why']})" if row["why"] else "")
