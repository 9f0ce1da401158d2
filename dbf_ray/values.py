"""Plain values, as JSON, YAML and tables hold them."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any


def plain_text(text: str) -> str:
    """Text that every file and stream can hold: bytes of a file's name that are not UTF-8 as backslash
    escapes.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def is_text(text: str) -> bool:
    """Whether text holds no control characters, and no bytes that are not UTF-8."""
    return plain_text(text) == text and not any(sign < " " or sign == "\x7f" for sign in text)


def one_line(text: str) -> str:
    """Text on one line for a terminal: control characters, which could move its cursor or rename its window,
    as escapes.
    """
    return "".join(
        sign if sign.isprintable() or sign == " " else ascii(sign)[1:-1] for sign in " ".join(text.split())
    )


def finite(value: Any) -> Any:
    """``value`` with every NaN and infinity in it replaced by None, tuples and sets by lists, numpy's and
    torch's scalars by Python's and all else by text: what JSON can hold.
    """
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "item"):
        return finite(value.item())
    return str(value)


def flat(
    tree: Mapping[str, Any], separator: str = ".", whole: Container[str] = (), prefix: str = ""
) -> dict[str, Any]:
    """The values of nested mappings under the names of the keys that lead to them, ``losses.box``; empty
    mappings, and those of a name in ``whole``, are values.
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and name not in whole:
            found |= flat(value, separator, whole, f"{name}{separator}")
        else:
            found[name] = value
    return found
