"""Keys in messages. What lies below :mod:`dbf_ray.build` knows no configuration: a message there names the
function's own argument, in backquotes (```frozen_stages` must be in 0..4``). The edge makes a key of it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from pydantic import BaseModel

from dbf_ray.config.base import OpenSection
from dbf_ray.config.loading import Config
from dbf_ray.errors import DbfRayError

_ARGUMENT = re.compile(r"`([a-z]\w*)`")


@contextlib.contextmanager
def at(*sections: str, **renamed: str) -> Iterator[None]:
    """Errors raised inside name keys instead of arguments.

    Args:
        sections: where the arguments are keys, as "data" or "data.augment"; the first that has one gives its
            name. A section with members of a family ("detector") has whatever argument there is.
        renamed: arguments whose key is called otherwise: ``fraction="selection_fraction"``.
    """
    try:
        yield
    except DbfRayError as error:
        error.args = (dotted(str(error), *sections, **renamed), *error.args[1:])
        raise


def dotted(text: str, *sections: str, **renamed: str) -> str:
    """``text`` with each argument in backquotes written as its key, as :func:`at` finds it; others stay as
    they are.
    """

    def key(found: re.Match[str]) -> str:
        name = renamed.get(found[1], found[1])
        return next((f"{section}.{name}" for section in sections if _has(section, name)), found[0])

    return _ARGUMENT.sub(key, text)


def _has(section: str, name: str) -> bool:
    kind: type[BaseModel] = Config
    for part in section.split("."):
        inner = kind.model_fields[part].annotation
        assert isinstance(inner, type), f"{section} is no section"
        kind = inner
    return name in kind.model_fields or issubclass(kind, OpenSection)
