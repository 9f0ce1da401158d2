"""Studies of the tests need not survive that the machine stops: they don't wait for the disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    def quick(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", quick)
    yield
    event.remove(Engine, "connect", quick)
