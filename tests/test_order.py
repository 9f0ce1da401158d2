"""What tests/conftest.py says of the tests."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import FIRST


def test_what_begins_first_is_there() -> None:
    assert [name for name in FIRST[1:] if not (Path(__file__).parents[1] / name).is_file()] == []
