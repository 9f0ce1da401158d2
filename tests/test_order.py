"""What tests/conftest.py says of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import FIRST


def test_what_begins_first_is_there() -> None:
    assert [name for name in FIRST[1:] if not (Path(__file__).parents[1] / name).is_file()] == []


def test_tests_of_a_file_share_a_process(request: pytest.FixtureRequest) -> None:
    if not hasattr(request.config, "workerinput"):
        pytest.skip("needs pytest-xdist's processes, here there is one")
    assert request.node.nodeid.endswith("@tests/test_order.py")
