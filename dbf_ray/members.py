"""Members of a family by name: a row of its table, or what a dotted path ``package.module:Name`` leads to."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from dbf_ray.errors import ConfigError

PATH_RULE = "a dotted path package.module:Name"


def find_member(
    family: str, name: Any, table: Mapping[str, Any], rule: str, fits: Callable[[Any], bool]
) -> Any:
    """The member that ``name`` stands for.

    Args:
        family: what its members are, "freezing policy".
        name: a key of ``table``, or a path such as ``"my_package.policies:EveryOther"``, whose module is
            imported; the current folder is searched too.
        table: the members of this package.
        rule: what a member from outside must be, "a class derived from ...".
        fits: whether something is that.

    Raises:
        ConfigError: naming the rule that is broken: unknown name, no such module, a module that cannot be
            imported, no such attribute in it, or an attribute that is no such member.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    if not isinstance(name, str) or ":" not in name:
        close = difflib.get_close_matches(str(name), table, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"unknown {family} {name!r}; known: {', '.join(table)}, or {PATH_RULE}{hint}")
    member = _load(family, name)
    if not fits(member):
        what = f"class {member.__name__}" if isinstance(member, type) else repr(member)
        lacks = ", ".join(sorted(getattr(member, "__abstractmethods__", ())))
        raise ConfigError(
            f"{family} {name!r} must be {rule}, it is {what}{f', which lacks {lacks}' if lacks else ''}"
        )
    return member


def from_outside(name: str) -> bool:
    """Whether a member's name is a dotted path."""
    return ":" in name


def subclass_of(base: type) -> Callable[[Any], bool]:
    """Whether something is a class derived from ``base``, with all that it leaves to be written."""
    return lambda member: (
        isinstance(member, type) and issubclass(member, base) and not inspect.isabstract(member)
    )


def _load(family: str, path: str) -> Any:
    """What a dotted path leads to."""
    name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in [*name.split("."), attribute]):
        raise ConfigError(f"{family} {path!r} must be a name of the table or {PATH_RULE}; correct the path")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # a console command has it not, other than python -m
    try:
        module = importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            missing = "" if name == error.name else f" ({error})"
            raise ConfigError(
                f"{family} {path!r}: there must be a module {name} to import, there is none{missing}; "
                "install its package, set PYTHONPATH, or start in the folder that holds it"
            ) from error
        raise ConfigError(
            f"{family} {path!r}: the module {name} must be one that can be imported, that failed with "
            f"{type(error).__name__}: {error}; correct it"
        ) from error
    if not hasattr(module, attribute):
        close = difflib.get_close_matches(attribute, vars(module), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{family} {path!r}: module {name} must have {attribute}, it has none{hint}")
    return getattr(module, attribute)
