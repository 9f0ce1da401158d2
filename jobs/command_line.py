"""Command lines made from the configuration: every key is an option, and its description is the help."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dbf_ray.config import Config, OpenSection
from dbf_ray.errors import ConfigError, DbfRayError

Options = tuple[argparse.Namespace, dict[str, str]]


def make_parser(module: str, description: str, epilog: str = "", sections: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """A parser with ``--json`` and, if ``sections`` is not None, ``--config`` and an option for each key of the named sections.

    Args:
        module: as typed after ``python -m``.
        description: what the command does.
        epilog: examples.
        sections: sections of the configuration, "" for its top level; None: the command has no configuration.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line of stdout")
    if sections is not None:
        parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with any of the keys below; options here win")
        for section in sections:
            _add_section(parser, section)
    return parser


def _add_section(parser: argparse.ArgumentParser, section: str) -> None:
    model: type[BaseModel] = Config
    about = "run"
    if section:
        chosen = Config.model_fields[section].annotation
        assert isinstance(chosen, type) and issubclass(chosen, BaseModel)
        model, about = chosen, section
    note = " Further keys are parameters of the chosen member." if issubclass(model, OpenSection) else ""
    group = parser.add_argument_group(about, " ".join((model.__doc__ or "").split()) + note)
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        key = f"{section}.{name}" if section else name
        default = field.get_default(call_default_factory=True)
        shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else default
        text = f"{field.description} (default: {shown})"
        group.add_argument(f"--{key}", dest=key, metavar="VALUE", default=None, help=text.replace("%", "%%"))


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> Options:
    """Arguments and dotted overrides.

    Raises:
        ConfigError: an option is unknown or has no value.
    """
    namespace, rest = parser.parse_known_args(arguments)
    overrides = {key: value for key, value in vars(namespace).items() if value is not None and _is_key(key)}
    open_sections = [name for name, field in Config.model_fields.items() if _is_open(field.annotation)]
    known = sorted(option for action in parser._actions for option in action.option_strings)
    for option, value in _pairs(rest):
        key = option.removeprefix("--")
        section = key.split(".", 1)[0]
        if not option.startswith("--") or "." not in key or section not in open_sections:
            close = difflib.get_close_matches(option, known, 1)
            hint = f"did you mean {close[0]}?" if close else "see --help"
            raise ConfigError(f"unknown option {option}; {hint}")
        if value is None:
            raise ConfigError(f"option {option} needs a value; give it as {option} VALUE")
        overrides[key] = value
    return namespace, overrides


def _pairs(rest: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    remaining = list(rest)
    while remaining:
        option = remaining.pop(0)
        if "=" in option and option.startswith("--"):
            option, value = option.split("=", 1)
            yield option, value
        elif option.startswith("--") and remaining and not remaining[0].startswith("--"):
            yield option, remaining.pop(0)
        else:
            yield option, None


def _is_key(key: str) -> bool:
    top = key.split(".", 1)[0]
    return top in Config.model_fields and ("." in key) == _is_section(Config.model_fields[top].annotation)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_open(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, OpenSection)


def main(command: Callable[[Sequence[str] | None], dict[str, Any] | None], arguments: Sequence[str] | None = None) -> int:
    """Run a command: its own errors become one line on stderr and exit status 2."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        command(arguments)
    except DbfRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; finished epochs are kept, the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def print_json(result: dict[str, Any]) -> None:
    """Print a result as one line of JSON; NaN becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and value != value:
            return None
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    print(json.dumps(plain(result), default=str))
