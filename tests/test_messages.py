"""Messages of what lies below build name arguments; the edge makes keys of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbf_ray.config import Config, at, dotted
from dbf_ray.config.roles import leaves
from dbf_ray.errors import ConfigError, DataError
from tests.test_layers import LAYERS, MODULES, ROOT, room_of

BUILD = next(index for index, rooms in enumerate(LAYERS) if "build" in rooms)
BELOW = set().union(*LAYERS[:BUILD]) - {"config"}
# names of MLflow's parameters for places in a recorded configuration, and commands to copy
TABLES = {"tracking/naming.py", "tracking/commands.py"}
KEYS = "|".join(re.escape(key) for key, _, _ in leaves(Config()) if "." in key)
FORBIDDEN = re.compile(rf"(?<![\w./])(--[a-z]\w+|(?:{KEYS})(?![\w(.]))")


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """String constants of a module, other than docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(n.body[0].value)
        for n in ast.walk(tree)
        if isinstance(n, documented) and isinstance(n.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
        if is_text and not re.fullmatch(r"--[a-z-]+", node.value):  # an argument of another program
            yield node.lineno, node.value


def below_build() -> list[Path]:
    return [
        file
        for file in MODULES
        if room_of(".".join(file.relative_to(ROOT).with_suffix("").parts)) in BELOW
        and not any(str(file).endswith(table) for table in TABLES)
    ]


def test_no_message_below_build_names_a_key_or_an_option() -> None:
    files = below_build()
    assert len(files) > 100
    found = [
        f"{file.relative_to(ROOT)}:{line}: {match[0]}"
        for file in files
        for line, text in texts(file)
        for match in FORBIDDEN.finditer(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text", ["set data.root to", "lower training.batch_size, or", "use --workers 0", "(freezing.cache_dtype)"]
)
def test_the_search_finds_them(text: str) -> None:
    assert FORBIDDEN.search(text)


def test_arguments_become_keys_of_the_first_section_that_has_them() -> None:
    text = "`batch_size` and `cache_gb` and `fraction`; `a b` and `nothing` stay"
    assert dotted(text, "evaluation", "training", "data", fraction="selection_fraction") == (
        "evaluation.batch_size and `cache_gb` and data.selection_fraction; `a b` and `nothing` stay"
    )
    assert dotted("`rotate`, `image_size`", "data.augment", "data") == "data.augment.rotate, data.image_size"
    assert dotted("`anchor_scales`", "detector") == "detector.anchor_scales"  # a member's own option


def test_errors_keep_their_kind_and_cause() -> None:
    with pytest.raises(DataError, match=r"^data\.root is not there$") as caught, at("training", "data"):
        raise DataError("`root` is not there") from OSError("gone")
    assert isinstance(caught.value.__cause__, OSError)

    @at("detector")
    @at("training")
    def built() -> None:
        raise ConfigError("`lr` of `frozen_stages`")

    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^training\.lr of detector\.frozen_stages$"):
            built()
