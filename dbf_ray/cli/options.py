"""Command lines made from the configuration: every key is an option, and its description is the help."""

from __future__ import annotations

import argparse
import difflib
import io
import json
import re
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TextIO, get_args, get_origin

from pydantic import BaseModel

from dbf_ray import stopping
from dbf_ray.config import RENAMED, Config
from dbf_ray.data.class_lists import CLASS_LISTS
from dbf_ray.errors import ConfigError, DbfRayError
from dbf_ray.member_help import member_help
from dbf_ray.shipped import shipped_files
from dbf_ray.values import finite, one_line

Options = tuple[argparse.Namespace, dict[str, str]]
KINDS: dict[Any, str] = {
    bool: "true|false",
    int: "INT",
    float: "FLOAT",
    str: "TEXT",
    Path: "PATH",
    list: "[A,B]",
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a ConfigError: one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise ConfigError(f"{message}; {self.prog} --help lists all options")


def make_parser(
    prog: str, description: str, epilog: str = "", sections: Sequence[str] | None = None, usage: str = ""
) -> argparse.ArgumentParser:
    """A parser with ``--json`` and, if ``sections`` is not None, ``--config`` and an option for each key of
    the named sections.

    Args:
        prog: how the command is called: ``dbf train``, ``python -m jobs.train``.
        description: what the command does.
        epilog: examples. In both texts commands are written ``dbf NAME``; shown is how they are called here.
        sections: sections of the configuration, "" for its top level; None: the command has no configuration.
        usage: the command's own options, for the first line of the help of a command with a configuration.
    """
    parser = Parser(
        prog=prog,
        usage=None
        if sections is None
        else f"%(prog)s [--config FILE] {usage} [--json] [--KEY VALUE ...]".replace("  ", " "),
        description=as_called(prog, description),
        epilog=as_called(prog, epilog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as one JSON object on the last line of stdout"
    )
    if sections is not None:
        add_configuration(parser, sections)
    return parser


def add_configuration(
    parser: argparse.ArgumentParser, sections: Sequence[str], shown: Collection[str] | None = None
) -> None:
    """``--config`` and an option for each key of the named sections; those that are not ``shown`` are taken
    too, without a word in the help.
    """
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file with any of the keys below, a mapping for each section, or a shipped one's name "
        f"({', '.join(shipped_files('configuration'))}); options here win",
    )
    for section in sections:
        _add_section(parser, section, shown)


def as_called(prog: str, text: str) -> str:
    """``text`` with each ``dbf COMMAND`` as it is typed by who typed ``prog``."""
    if not prog.startswith("python -m jobs."):
        return text
    return re.sub(r"\bdbf ([a-z][a-z-]*)", lambda found: f"python -m jobs.{found[1].replace('-', '_')}", text)


def _add_section(parser: argparse.ArgumentParser, section: str, shown: Collection[str] | None = None) -> None:
    model: type[BaseModel] = Config
    about = "run"
    if section:
        chosen = Config.model_fields[section].annotation
        assert isinstance(chosen, type)
        assert issubclass(chosen, BaseModel)
        model, about = chosen, section
    _add_keys(parser.add_argument_group(about, _section_help(model, section)), model, section, shown)


def _section_help(model: type[BaseModel], section: str) -> str:
    """What stands above the options of a section: what it is, and the members that it chooses from."""
    about = (model.__doc__ or "").split("Example:")[0]
    text = textwrap.fill(" ".join(about.split()), 96)
    return "\n".join(filter(None, (text, member_help(section))))


def _add_keys(group: Any, model: type[BaseModel], prefix: str, listed: Collection[str] | None = None) -> None:
    """An option for each key of ``model``, and of the sections within it unless it is the whole
    configuration.
    """
    for name, field in model.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        if _is_section(field.annotation):
            if prefix:
                _add_keys(group, field.annotation, key, listed)  # type: ignore[arg-type]
            continue
        default = field.get_default(call_default_factory=True)
        shown = (
            json.dumps(default).replace('"', "")
            if isinstance(default, bool | list | None)
            else f"{default:.4g}"
            if isinstance(default, float)
            else default
        )
        text = f"{field.description}{member_help(key)} (default: {shown})"
        text = text.replace("%", "%%") if listed is None or key in listed else argparse.SUPPRESS
        group.add_argument(f"--{key}", dest=key, metavar=_kind(field.annotation), default=None, help=text)


def _kind(annotation: Any) -> str:
    """What a value looks like: ``a|b`` for choices, else a word for its type; where null is possible the
    description says so.
    """
    if get_origin(annotation) is Literal:
        return "|".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) is list:
        (inner,) = get_args(annotation)
        return f"[{_kind(inner).replace('|', ',')}]" if get_origin(inner) is Literal else KINDS[list]
    if annotation in KINDS:
        return KINDS[annotation]
    return "|".join(_kind(part) for part in get_args(annotation) if part is not type(None))


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> Options:
    """Arguments and dotted overrides.

    Raises:
        ConfigError: an option is unknown or has no value.
    """
    namespace, rest = parser.parse_known_args(arguments)
    return namespace, overrides_of(parser, namespace, rest)


def overrides_of(
    parser: argparse.ArgumentParser, namespace: argparse.Namespace, rest: Sequence[str]
) -> dict[str, str]:
    """Dotted overrides among parsed options and in the ``rest`` that the parser does not know: keys of
    sections that are open.

    Raises:
        ConfigError: see :func:`parse`.
    """
    overrides = {key: value for key, value in vars(namespace).items() if value is not None and _is_key(key)}
    known = [option for action in parser._actions for option in action.option_strings]
    open_sections = {
        section
        for section in ("detector", "freezing")
        if any(option.startswith(f"--{section}.") for option in known)
    }
    for option, value in _pairs(rest):
        key = option.removeprefix("--")
        section = key.split(".", 1)[0]
        if not option.startswith("--") or "." not in key or section not in open_sections:
            alike = [one for one in known if one.rpartition(".")[2] == key]
            close = alike or difflib.get_close_matches(option, sorted(known), 1)
            hint = f"did you mean {close[0]}?" if close else f"{parser.prog} --help lists all options"
            hint = f"it is called --{RENAMED[key]} now" if key in RENAMED else hint
            raise ConfigError(f"unknown option {option}; {hint}")
        if value is None:
            raise ConfigError(f"option {option} needs a value, got none; give it as {option} VALUE")
        overrides[key] = value
    return overrides


def class_option(text: str | None) -> str | list[str] | None:
    """``--classes``: names separated by commas, or the name of a public list.

    Raises:
        ConfigError: it is nearly the name of a list.
    """
    if text is None or text in CLASS_LISTS:
        return text
    if "," not in text and (meant := difflib.get_close_matches(text, CLASS_LISTS, 1, 0.8)):
        raise ConfigError(
            f"--classes must be names or one of {', '.join(CLASS_LISTS)}, got {text!r}; did you mean "
            f"{meant[0]}?"
        )
    return [name.strip() for name in text.split(",")]


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


def run_command(
    command: Callable[[Sequence[str] | None], dict[str, Any] | None], arguments: Sequence[str] | None = None
) -> int:
    """Run a command: its own errors, and files that cannot be read or written, become one line on stderr and
    exit status 2. A signal that ends it becomes one line, too, and 128 plus its number: 143 for SIGTERM, 130
    for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.showwarning = _show_warning
    try:
        with stopping.heeding():
            try:
                command(arguments)
            except (DbfRayError, OSError) as error:  # of what the same signal ended, as a Ray
                stopping.check()
                raise error
            except KeyboardInterrupt as error:  # some libraries raise their own
                raise stopping.Stopped(stopping.asked() or signal.SIGINT) from error
    except DbfRayError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        text = one_line(f"{place}{error.strerror or error}")
        print(
            f"error: {text}; check that the place is there, is writable and has room",
            file=sys.stderr,
        )
        return 2
    except stopping.Stopped as stopped:
        print(
            f"{stopped}; what is done is kept, the same command goes on from there (a training from its last "
            "checkpoint)",
            file=sys.stderr,
        )
        return 128 + stopped.number
    return 0


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line for a person: warnings are about their data or machine, not about a line of code."""
    print(f"warning: {one_line(str(message))}", file=sys.stderr)


def metric_lines(metrics: Mapping[str, float | str], width: int) -> str:
    """Metrics as text, a line each, names padded to ``width``; where no object counts one is none."""

    def shown(value: float | str) -> str:
        if isinstance(value, str):
            return value
        return "none (no object counts)" if value != value else f"{value:.4f}"

    return "\n".join(f"{name:<{width}} {shown(value)}" for name, value in metrics.items())


def registered_line(registered: Mapping[str, Any]) -> str:
    """What is said of a registered model."""
    before = "" if registered["new"] else " (as before: this checkpoint is it already)"
    return f"registered as {registered['model']}{before}; mlflow.pyfunc.load_model loads it"


def print_json(result: dict[str, Any]) -> None:
    """Print a result as one line of JSON; NaN and infinity become null."""
    print(json.dumps(finite(result)), flush=True)
