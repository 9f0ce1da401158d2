"""YAML and JSON in which no mapping holds a key twice: their own parsers keep the last and say nothing. And
YAML whose text stays text, that makes plain values alone, and whose aliases do not multiply.
"""

from __future__ import annotations

import itertools
import json
import reprlib
from collections.abc import Callable
from typing import Any

import yaml

Path = tuple[str, ...]

NULL = "tag:yaml.org,2002:null"
TEXT = "tag:yaml.org,2002:str"
MERGE = "tag:yaml.org,2002:merge"
MOST_REPEATED = 10_000  # values that aliases may repeat; a few lines of them can stand for billions


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
        yaml.YAMLError, ValueError: it is no YAML, a value is not what its tag says, or its aliases repeat too
            much.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        sizes: dict[int, int] = {}
        if _size(node, sizes) - len(sizes) > MOST_REPEATED:
            raise yaml.YAMLError(f"its aliases repeat more than {MOST_REPEATED} values; write them out")
        _prepare(node, (), is_text, loader, set())
        return loader.construct_document(node)
    except (LookupError, AttributeError, TypeError, RecursionError) as error:  # from a tag, or its nesting
        raise yaml.YAMLError(f"a value is not what its tag says, or nested too deep: {error}") from error
    finally:
        loader.dispose()


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node stands for, each as often as aliases name it; ``sizes`` has those of all nodes
    below it.
    """
    if (known := sizes.get(id(node))) is None:
        sizes[id(node)] = MOST_REPEATED + 2**32  # of one that is within itself
        inside = [*itertools.chain(*node.value)] if isinstance(node, yaml.MappingNode) else node.value
        parts = [] if isinstance(node, yaml.ScalarNode) else inside
        known = sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    return known


def load_json(text: str) -> Any:
    """The value that JSON describes.

    Raises:
        ValueError: it is no JSON, or a mapping holds a key twice.
    """
    return json.loads(text, object_pairs_hook=_single)


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
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
