"""Check a data set, cut its images into patches, and bring detections of patches back to the images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Protocol

from dbf_ray.cli import prepare_check, prepare_merge, prepare_split
from dbf_ray.cli.options import Parser, as_called, overrides_of, print_json, run_command

EPILOG = "%(prog)s COMMAND --help explains each. Exit status: 0 done, 1 a check found errors, 2 bad input."


class Command(Protocol):
    """A sub-command: what it does, its options, and how it is run."""

    ABOUT: str
    EPILOG: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Its options."""

    def command(self, options: argparse.Namespace) -> dict[str, Any]:
        """Run it, print for people, and return the result."""


COMMANDS: dict[str, Command] = {"check": prepare_check, "split": prepare_split, "merge": prepare_merge}


def main(arguments: Sequence[str] | None = None, prog: str = "dbf prepare-data") -> int:
    """Run the command and return its exit status: a check that found errors ends with 1."""
    results: list[dict[str, Any]] = []
    status = run_command(lambda given: results.append(command(given, prog)), arguments)
    return status or int(any(result.get("errors", 0) for result in results))


def command(arguments: Sequence[str] | None = None, prog: str = "dbf prepare-data") -> dict[str, Any]:
    """Run a sub-command and return its result."""
    parser, parsers = make_parsers(prog)
    options, unknown = parser.parse_known_args(arguments)
    options.overrides = overrides_of(parsers[options.command], options, unknown)
    result = COMMANDS[options.command].command(options)
    if options.json:
        print_json(result)
    return result


def make_parsers(prog: str) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the command line, and those of the sub-commands."""
    look: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = Parser(prog=prog, description=__doc__, epilog=EPILOG, **look)
    places = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers: dict[str, argparse.ArgumentParser] = {}
    for name, module in COMMANDS.items():
        about, epilog = as_called(prog, module.ABOUT), as_called(prog, module.EPILOG)
        summary = " ".join(about.split("\n\n")[0].split())
        parsers[name] = places.add_parser(name, help=summary, description=about, epilog=epilog, **look)
        module.add_arguments(parsers[name])
        parsers[name].add_argument(
            "--json",
            action="store_true",
            help="print the result as one JSON object on the last line of stdout",
        )
    return parser, parsers
