"""What the command line's help says of the members of each family, made from their tables."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence

from dbf_ray.data import DATASETS, READERS
from dbf_ray.detectors import BACKBONES, DETECTORS, own_options, with_defaults
from dbf_ray.freezing.policies import POLICIES
from dbf_ray.members import PATH_RULE


def member_help(key: str) -> str:
    """What to add to the help of a configuration key (the names that it takes) or of a section (its members
    with their parameters, a paragraph each); "" where no members are named.
    """
    return _TEXTS[key]() if key in _TEXTS else ""


def _names(table: Iterable[str]) -> Callable[[], str]:
    return lambda: f": {', '.join(table)}, or {PATH_RULE}"


def _policies() -> str:
    rows = {}
    for name, member in POLICIES.items():
        fields = member.model_fields.items()
        parameters = [key if field.is_required() else f"{key}={field.default}" for key, field in fields]
        rows[f"{name}({', '.join(parameters)})" if parameters else name] = _sentence(member)
    return _paragraphs(rows)


def _detectors() -> str:
    rows = {}
    for name, member in DETECTORS.items():
        defaults = with_defaults(name, {})
        options = ", ".join(f"{key}={_default(defaults[key])}" for key in own_options(name))
        rows[name] = f"{_sentence(member)} Options: {options}."
    return _paragraphs(rows)


def _default(value: object) -> str:
    """A default as it is typed, without blanks."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_default, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _readers() -> str:
    layouts = {name: reader.layout for name, reader in READERS.items()}
    return "Formats, and what root then holds:\n" + _paragraphs(layouts)


def _sentence(member: type) -> str:
    """The first sentence of a class's docstring, as plain text."""
    text = " ".join((inspect.getdoc(member) or "").split())
    return re.sub(r":\w+:(?=`)|`", "", text.partition(". ")[0]).rstrip(".") + "."


def _paragraphs(rows: dict[str, str]) -> str:
    texts = (f"{name}: {text}" for name, text in rows.items())
    return "\n".join(
        textwrap.fill(text, 96, initial_indent="  ", subsequent_indent="      ") for text in texts
    )


_TEXTS: dict[str, Callable[[], str]] = {
    "freezing": _policies,
    "freezing.policy": _names(POLICIES),
    "detector": _detectors,
    "detector.name": _names(DETECTORS),
    "detector.backbone": _names(BACKBONES),
    "data": _readers,
    "data.name": _names(DATASETS),
    "format": _names(READERS),  # of a folder of labels
}
