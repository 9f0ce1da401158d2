"""YAML and JSON in which no mapping holds a key twice: their own parsers keep the last and say nothing. And
YAML whose text stays text.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable
from typing import Any

import yaml

Path = tuple[str, ...]

NULL = "tag:yaml.org,2002:null"
TEXT = "tag:yaml.org,2002:str"
MERGE = "tag:yaml.org,2002:merge"


class RepeatedKey(yaml.MarkedYAMLError):
    """A mapping holds a key twice; ``problem`` says which and what to do, ``problem_mark`` where."""


def load_yaml(text: str, is_text: Callable[[Path], bool] = lambda path: False) -> Any:
    """The value that YAML describes.

    Args:
        text: the YAML.
        is_text: of the keys that lead to a value, the places of lists ("0") among them: whether it is text
            as it is written, ``yes`` and ``01`` among it, which YAML 1.1 takes for true and 1. A null stays
            null unless it is in a list or mapping that is text itself.

    Raises:
        RepeatedKey: a mapping holds a key twice.
        yaml.YAMLError, ValueError: it is no YAML, or a value is not what its tag says.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _prepare(node, (), is_text, loader, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def load_json(text: str) -> Any:
    """The value that JSON describes.

    Raises:
        ValueError: it is no JSON, or a mapping holds a key twice.
    """
    return json.loads(text, object_pairs_hook=_single)


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(
            f"a mapping must hold a key once, {twice!r} is twice in {reprlib.repr(found)}; remove one of them"
        )
    return found


def _prepare(
    node: yaml.Node, path: Path, is_text: Callable[[Path], bool], loader: yaml.SafeLoader, done: set[Any]
) -> None:
    """Tag what is text, and refuse a key that is there twice."""
    if isinstance(node, yaml.ScalarNode):
        if is_text(path) and (node.tag != NULL or is_text(path[:-1])):
            node.tag = TEXT
    elif (visit := (id(node), is_text(path))) in done:  # an alias
        return
    elif isinstance(node, yaml.SequenceNode):
        done.add(visit)
        for place, value in enumerate(node.value):
            _prepare(value, (*path, str(place)), is_text, loader, done)
    elif isinstance(node, yaml.MappingNode):
        done.add(visit)
        seen: dict[Any, yaml.Node] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if is_text(path):
                    key.tag = TEXT
                known = loader.construct_object(key)
                if known in seen:
                    raise RepeatedKey(
                        problem=f"a mapping must hold a key once, {key.value!r} is in line "
                        f"{seen[known].start_mark.line + 1} too; remove one of them",
                        problem_mark=key.start_mark,
                    )
                seen[known] = key
            _prepare(value, (*path, str(getattr(key, "value", ""))), is_text, loader, done)
